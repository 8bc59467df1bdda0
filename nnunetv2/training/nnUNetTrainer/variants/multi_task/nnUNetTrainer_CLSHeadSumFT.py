"""Re-export, so that ``nnUNetv2_train -tr nnUNetTrainer_CLSHeadSumFT`` finds the trainer."""

from nnunet_3dct.training.variants import nnUNetTrainer_CLSHeadSumFT

__all__ = ["nnUNetTrainer_CLSHeadSumFT"]
