"""``NNUNETV2_MT_INTENSITY_AUG=off`` keeps nnU-Net's spatial augmentation and leaves intensities alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from tests import toy

ARGUMENTS = ((16, 24, 24), (-0.5, 0.5), None, (), False)


@pytest.fixture
def transforms_of(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], BasicTransform]:
    """Training transforms of stage 1's trainer with the variable set to a value."""

    def make(setting: str) -> BasicTransform:
        monkeypatch.setenv("NNUNETV2_MT_INTENSITY_AUG", setting)
        return toy.get_trainer(toy.STAGE1).get_training_transforms(*ARGUMENTS)

    return make


def test_default_is_nnunets_own(transforms_of: Callable[[str], BasicTransform]) -> None:
    assert repr(transforms_of("on")) == repr(nnUNetTrainer.get_training_transforms(*ARGUMENTS))


@pytest.mark.parametrize("value", [-1.5, 2.0])
def test_off_leaves_intensities_as_they_are(value: float, transforms_of: Callable[[str], BasicTransform]) -> None:
    torch.manual_seed(0)
    transforms = transforms_of("off")
    names = repr(transforms)
    assert "SpatialTransform" in names and "Gamma" not in names and "Noise" not in names
    for _ in range(20):
        image = torch.full((1, 16, 24, 24), value)
        done = transforms(image=image, segmentation=torch.zeros(1, 16, 24, 24, dtype=torch.int16))
        inside = done["image"][:, 6:10, 9:15, 9:15]
        torch.testing.assert_close(inside, torch.full_like(inside, value), atol=1e-4, rtol=0)
