"""Measurements of targets whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nnunet_3dct.inference.image_measurements import CONTRAST, INTENSITY, SHARPNESS
from nnunet_3dct.inference.measurements import (
    EDGE,
    FIRST_ORDER,
    SHAPE,
    SHELL_NAMES,
    measure_case,
    measure_target,
    measured_width,
    measurement_names,
)


def ball(radius: float, size: int = 48, spacing: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    """Outline of a ball of a radius in mm."""
    axes = [(np.arange(size) - size / 2 + 0.5) * step for step in spacing]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius**2


def named(
    image: np.ndarray, probability: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)
) -> dict[str, float]:
    names = [name for block in measurement_names(len(image)).values() for name in block]
    return dict(zip(names, measure_case(image, probability, spacing), strict=True))


def test_names_and_values_are_as_many() -> None:
    for channels in (1, 3):
        names = [name for block in measurement_names(channels).values() for name in block]
        assert len(names) == len(set(names)) == measured_width(channels)
    of_image = len(INTENSITY) + len(CONTRAST) + len(SHARPNESS)
    assert measured_width(1) == len(FIRST_ORDER) + 2 * len(SHELL_NAMES) + len(EDGE) + len(SHAPE) + of_image


def test_ball_has_the_volume_surface_and_axes_of_a_ball() -> None:
    found = named(np.zeros((1, 48, 48, 48)), ball(12).astype(float))
    assert np.exp(found["volume"]) == pytest.approx(4 / 3 * np.pi * 12**3 / 1000, rel=0.02)
    assert np.exp(found["surface"]) == pytest.approx(4 * np.pi * 12**2 / 100, rel=0.12)  # steps of voxels
    assert found["sphericity"] == pytest.approx(1, abs=0.12) and found["elongation"] == pytest.approx(1, abs=0.01)
    assert np.exp(found["longest axis"]) == pytest.approx(12 / np.sqrt(5), rel=0.02)


def test_shape_is_in_mm_whatever_the_voxels() -> None:
    fine = named(np.zeros((1, 48, 48, 48)), ball(12).astype(float))
    flat = named(np.zeros((1, 48, 48, 48)), ball(12, spacing=(2, 1, 1)).astype(float), (2, 1, 1))
    for name in ("volume", "longest axis", "shortest axis", "surface"):
        assert flat[name] == pytest.approx(fine[name], abs=0.06), name


def test_intensities_are_those_of_scipy_under_the_outline() -> None:
    outline = ball(9)
    image = np.random.default_rng(0).gamma(2, size=outline.shape).astype(np.float32)
    found, inside = named(image[None], outline.astype(float)), image[outline].astype(float)
    expected = [inside.mean(), inside.std(), stats.skew(inside), stats.kurtosis(inside)]
    for name, value in zip(FIRST_ORDER, [*expected, *np.percentile(inside, (5, 25, 50, 75, 95))], strict=True):
        assert found[name] == pytest.approx(value, rel=1e-4), name


def test_profile_shows_core_and_rim_apart() -> None:
    image = np.full((1, 48, 48, 48), -1.0, np.float32)
    image[0, ball(12)], image[0, ball(8)] = 1.0, 3.0
    found = named(image, ball(12).astype(float))
    assert found["mean in the core"] > 2.2 and found["mean in the inner rim"] == pytest.approx(1, abs=0.05)
    assert found["mean in the outer rim"] == pytest.approx(-1, abs=0.05) == found["mean in the surroundings"]
    assert found["gradient at the edge"] > found["gradient inside"]


def test_most_probable_part_is_measured() -> None:
    probability = np.zeros((40, 40, 40))
    probability[4:8, 4:8, 4:8] = 0.45  # larger, but faint
    probability[28:31, 28:31, 28:31] = 1.0
    image = np.where(np.arange(40)[:, None, None] < 20, 5.0, 7.0) * np.ones((40, 40, 40))
    found = named(image[None], probability)
    assert found["mean"] == pytest.approx(5.0) or found["mean"] == pytest.approx(7.0)
    faint = named(image[None], np.where(probability == 1, 0.0, probability))
    assert faint["mean"] == pytest.approx(5.0)
    probability[28:31, 28:32, 28:32] = 1.0
    assert named(image[None], probability)["mean"] == pytest.approx(7.0)


def test_nothing_is_measured_without_target() -> None:
    assert np.isnan(measure_target(np.zeros((1, 8, 8, 8)), np.zeros((8, 8, 8)), (1, 1, 1))).all()


@pytest.mark.parametrize("where", [(0, 0, 0), (7, 7, 7), (3, 0, 7)])
def test_a_single_voxel_anywhere_gives_numbers(where: tuple[int, int, int]) -> None:
    probability = np.zeros((8, 8, 8))
    probability[where] = 0.9
    image = np.random.default_rng(1).normal(size=(2, 8, 8, 8))
    assert np.isfinite(measure_target(image, probability, (3, 1, 1))).all()


def test_a_large_target_is_measured_on_fewer_voxels_to_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).normal(size=(1, 48, 48, 48)).astype(np.float32)
    image[0, ball(15)] += 3
    all_voxels = named(image, ball(15).astype(float))
    monkeypatch.setattr("nnunet_3dct.inference.measurements.MOST_VOXELS", 30_000)
    fewer = named(image, ball(15).astype(float))
    for name in ("mean", "percentile 50", "volume", "longest axis"):
        assert fewer[name] == pytest.approx(all_voxels[name], abs=0.1), name


def test_image_as_a_whole_shows_noise_and_blur() -> None:
    from scipy import ndimage

    image = np.random.default_rng(0).normal(size=(1, 32, 32, 32)).astype(np.float32)
    smooth = ndimage.gaussian_filter(image, (0, 2, 2, 2))
    plain, blurred = (named(x, ball(9, 32).astype(float)) for x in (image, smooth / smooth.std()))
    assert plain["standard deviation of the image"] == pytest.approx(1, abs=0.05)
    assert blurred["fine structure of the image"] < plain["fine structure of the image"] / 3
    assert blurred["share of fine structure of the image"] < plain["share of fine structure of the image"] - 1


def test_named_measurements_are_given_in_the_order_asked_for_and_unknown_ones_are_named() -> None:
    image = np.random.default_rng(0).normal(size=(2, 24, 24, 24)).astype(np.float32)
    outline = ball(6, 24).astype(float)
    every = named(image, outline)
    asked = [
        "volume",
        "gradient of the image (channel 1)",
        "mean of channel 0",
        "percentile 99 of the image (channel 0)",
    ]
    assert measure_case(image, outline, (1, 1, 1), asked).tolist() == [every[name] for name in asked]
    with pytest.raises(ValueError, match=r"found \['entropy'\]. Fit the head again"):
        measure_case(image, outline, (1, 1, 1), ["volume", "entropy"])
