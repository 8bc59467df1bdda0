"""Re-export, so that ``nnUNetv2_train -tr nnUNetTrainer_Stage1`` finds the trainer."""

from nnunet_3dct.training.variants import nnUNetTrainer_Stage1

__all__ = ["nnUNetTrainer_Stage1"]
