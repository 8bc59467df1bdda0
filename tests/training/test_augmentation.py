"""``NNUNETV2_MT_INTENSITY_AUG=off`` keeps nnU-Net's spatial augmentation and leaves intensities alone."""

from __future__ import annotations

import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_3dct.settings import Settings
from nnunet_3dct.training.variants import nnUNetTrainer_Stage1

ARGUMENTS = ((16, 24, 24), (-0.5, 0.5), None, (), False)


def _transforms(setting: str) -> BasicTransform:
    trainer = nnUNetTrainer_Stage1.__new__(nnUNetTrainer_Stage1)
    trainer.settings = Settings(intensity_aug=setting)
    return trainer.get_training_transforms(*ARGUMENTS)


def test_default_is_nnunets_own() -> None:
    assert repr(_transforms("on")) == repr(nnUNetTrainer.get_training_transforms(*ARGUMENTS))


@pytest.mark.parametrize("value", [-1.5, 2.0])
def test_off_leaves_intensities_as_they_are(value: float) -> None:
    torch.manual_seed(0)
    transforms = _transforms("off")
    names = repr(transforms)
    assert "SpatialTransform" in names and "Gamma" not in names and "Noise" not in names
    for _ in range(20):
        image = torch.full((1, 16, 24, 24), value)
        done = transforms(image=image, segmentation=torch.zeros(1, 16, 24, 24, dtype=torch.int16))
        inside = done["image"][:, 6:10, 9:15, 9:15]
        torch.testing.assert_close(inside, torch.full_like(inside, value), atol=1e-4, rtol=0)
