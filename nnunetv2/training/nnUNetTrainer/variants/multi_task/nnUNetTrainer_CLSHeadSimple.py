"""Re-export, so that ``nnUNetv2_train -tr nnUNetTrainer_CLSHeadSimple`` finds the trainer."""

from nnunet_3dct.training.variants import nnUNetTrainer_CLSHeadSimple

__all__ = ["nnUNetTrainer_CLSHeadSimple"]
