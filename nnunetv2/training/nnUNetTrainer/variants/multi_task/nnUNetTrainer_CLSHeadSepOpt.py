"""Re-export, so that ``nnUNetv2_train -tr nnUNetTrainer_CLSHeadSepOpt`` finds the trainer."""

from nnunet_3dct.training.variants import nnUNetTrainer_CLSHeadSepOpt

__all__ = ["nnUNetTrainer_CLSHeadSepOpt"]
