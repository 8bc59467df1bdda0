"""Resampling by matrices is nnU-Net's own, value for value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from nnunet_3dct.inference import resampling
from nnunet_3dct.inference.resampling import plan_resampling, resample, resample_in_slabs

ISO, THICK = (1.0, 1.0, 1.0), (5.0, 1.0, 1.0)
CASES = [
    pytest.param((20, 33, 41), (27, 40, 35), ISO, (0.7, 0.8, 1.2), id="up and down"),
    pytest.param((9, 30, 31), (14, 21, 44), THICK, (3.0, 1.4, 0.7), id="thick slices along z"),
    pytest.param((30, 9, 31), (21, 14, 44), (1.0, 5.0, 1.0), (1.4, 3.0, 0.7), id="thick slices along y"),
    pytest.param((30, 31, 9), (21, 44, 14), (1.0, 1.0, 5.0), (1.4, 0.7, 3.0), id="thick slices along x"),
    pytest.param((9, 30, 31), (9, 21, 44), THICK, (5.0, 1.4, 0.7), id="thick slices kept"),
    pytest.param((9, 30, 31), (17, 30, 31), (1.0, 1.0, 1.0), (0.5, 1.0, 1.0), id="one axis"),
    pytest.param((1, 30, 31), (1, 60, 20), (9.0, 1.0, 1.0), (9.0, 0.5, 1.5), id="one slice"),
    pytest.param((12, 13, 14), (12, 13, 14), ISO, ISO, id="nothing to do"),
    pytest.param((70, 8, 9), (150, 8, 130), ISO, (0.5, 1.0, 0.07), id="several blocks"),
]


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(("old", "new", "old_spacing", "new_spacing"), CASES)
def test_values_are_those_of_nnunet(old, new, old_spacing, new_spacing, order: int) -> None:
    data = np.random.default_rng(0).normal(size=(2, *old)).astype(np.float32)
    data[1] = np.maximum(data[1], 0) * 30  # flat parts and edges: splines overshoot and are clipped
    expected = resample_data_or_seg_to_shape(
        data.copy(), new, old_spacing, new_spacing, order=order, order_z=0, force_separate_z=None
    )
    plan = plan_resampling(old, new, old_spacing, new_spacing, order)
    found = resample(torch.from_numpy(data), plan).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found / [[[[1]]], [[[30]]]], expected / [[[[1]]], [[[30]]]], atol=2e-6)


@pytest.mark.parametrize("old_spacing", [ISO, THICK])
def test_slabs_make_up_the_whole(old_spacing, monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.randn(2, 9, 20, 21, generator=torch.Generator().manual_seed(0))
    plan = plan_resampling((9, 20, 21), (23, 31, 17), old_spacing, ISO, 3)
    whole = resample(data, plan)
    monkeypatch.setattr(resampling, "SLAB_VOXELS", 2 * 5 * 31 * 17)
    slabs = list(resample_in_slabs(data, plan))
    assert [s.stop - s.start for s, _ in slabs] == [5, 5, 5, 5, 3]
    torch.testing.assert_close(torch.cat([part for _, part in slabs], dim=1), whole, atol=1e-5, rtol=0)


def test_half_precision_logits_round_as_in_nnunet() -> None:
    logits = (4 * torch.randn(3, 12, 14, 15, generator=torch.Generator().manual_seed(0))).half()
    expected = resample_data_or_seg_to_shape(
        logits.clone(), (17, 20, 11), ISO, (0.7, 0.7, 1.4), order=1, order_z=0, force_separate_z=None
    )
    found = resample(logits, plan_resampling((12, 14, 15), (17, 20, 11), ISO, (0.7, 0.7, 1.4), 1)).half().numpy()
    assert expected.dtype == np.float16
    assert np.mean(found == expected) > 0.995  # float32 against float64: now and then the next number of float16
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)
    assert np.mean(found.argmax(0) == expected.argmax(0)) > 0.9995
