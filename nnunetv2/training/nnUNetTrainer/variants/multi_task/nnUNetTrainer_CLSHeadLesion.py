"""Re-export, so that ``nnUNetv2_train -tr nnUNetTrainer_CLSHeadLesion`` finds the trainer."""

from nnunet_3dct.training.variants import nnUNetTrainer_CLSHeadLesion

__all__ = ["nnUNetTrainer_CLSHeadLesion"]
