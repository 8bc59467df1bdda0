"""Re-export, so that ``nnUNetv2_train -tr nnUNetTrainer_CLSHeadMA`` finds the trainer."""

from nnunet_3dct.training.variants import nnUNetTrainer_CLSHeadMA

__all__ = ["nnUNetTrainer_CLSHeadMA"]
