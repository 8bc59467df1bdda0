"""This project's trainers, for ``nnUNet_extTrainer``.

For an nnU-Net that is itself installed from a source tree: it does not search the folder where pip puts
our re-exports. nnU-Net imports every module of this folder by its bare name and forgets those whose file lies
here, so the folder holds this re-export and nothing else.
"""

from nnunet_3dct.training.variants import (
    nnUNetTrainer_CLSHeadLesion,
    nnUNetTrainer_CLSHeadMA,
    nnUNetTrainer_CLSHeadSepOpt,
    nnUNetTrainer_CLSHeadSimple,
    nnUNetTrainer_CLSHeadSum,
    nnUNetTrainer_CLSHeadSumFT,
    nnUNetTrainer_Stage1,
)

__all__ = [
    "nnUNetTrainer_CLSHeadLesion",
    "nnUNetTrainer_CLSHeadMA",
    "nnUNetTrainer_CLSHeadSepOpt",
    "nnUNetTrainer_CLSHeadSimple",
    "nnUNetTrainer_CLSHeadSum",
    "nnUNetTrainer_CLSHeadSumFT",
    "nnUNetTrainer_Stage1",
]
