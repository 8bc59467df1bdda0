"""First-order and shape features of the target against known bodies and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nnunet_3dct.probe.target_features import target_features


def ball(radius_mm: float, spacing: tuple[float, float, float]) -> np.ndarray:
    size = [int(2 * radius_mm / s) + 7 for s in spacing]
    grid = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in size), indexing="ij"), -1) * spacing
    return np.sqrt((grid**2).sum(-1)) <= radius_mm


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.7, 0.7)])
def test_ball_has_its_volume_surface_and_axes(spacing: tuple[float, float, float]) -> None:
    mask = ball(15, spacing)
    found = target_features(np.zeros((1, *mask.shape)), mask, spacing)
    assert found["volume"] == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.02)
    assert found["surface"] == pytest.approx(4 * np.pi * 15**2 / 100, rel=0.2)  # the steps of voxels add surface
    assert 0.8 < found["sphericity"] < 1
    assert [found[f"axis_{n}"] for n in (1, 2, 3)] == pytest.approx([15 / np.sqrt(5)] * 3, rel=0.03)
    assert found["parts"] == 1


def test_intensities_are_those_inside_the_target_for_each_channel() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.gamma(2, 3, (2, 9, 8, 7)), rng.random((9, 8, 7)) < 0.3
    found = target_features(image, mask, (1, 1, 1))
    for channel in range(2):
        inside = image[channel][mask]
        for name, value in {
            "mean": inside.mean(),
            "std": inside.std(),
            "skewness": stats.skew(inside),
            "kurtosis": stats.kurtosis(inside),
            "percentile_50": np.median(inside),
        }.items():
            assert found[f"channel_{channel}_{name}"] == pytest.approx(value)


def test_elongation_shows_in_the_axes_whatever_the_direction() -> None:
    mask = np.zeros((20, 40, 20), bool)
    mask[8:12, 5:35, 8:12] = True
    found = target_features(np.zeros((1, *mask.shape)), mask, (1, 1, 1))
    assert found["axis_1"] == pytest.approx(30 / np.sqrt(12), rel=0.01)
    assert found["axis_2"] == pytest.approx(found["axis_3"])


@pytest.mark.parametrize("voxels", [0, 1])
def test_empty_and_tiny_targets_have_the_same_features_without_a_crash(voxels: int) -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask.flat[:voxels] = True
    found = target_features(np.ones((1, 4, 4, 4)), mask, (1, 1, 1))
    full = target_features(np.ones((1, 4, 4, 4)), np.ones((4, 4, 4), bool), (1, 1, 1))
    assert found.keys() == full.keys()
    assert found["volume"] == voxels / 1000
    assert np.isnan(found["sphericity"]) == (voxels == 0)
