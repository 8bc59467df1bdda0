"""Re-export, so that ``nnUNetv2_train -tr nnUNetTrainer_CLSHeadSum`` finds the trainer."""

from nnunet_3dct.training.variants import nnUNetTrainer_CLSHeadSum

__all__ = ["nnUNetTrainer_CLSHeadSum"]
