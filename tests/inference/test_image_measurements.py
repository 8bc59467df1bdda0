"""What is measured of an image as a whole tells the kinds of images apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from nnunet_3dct.inference.image_measurements import AXES, CONTRAST, INTENSITY, SCALES, image_names, measure_image
from nnunet_3dct.networks.case_layout import IMAGE_CONTRAST, IMAGE_SHARPNESS, WHOLE_IMAGE

SIZE = 48


def vessels(seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Bright small structures on dark noise ``(1, Z, Y, X)``."""
    rng = np.random.default_rng(seed)
    points = (rng.random((size, size, size)) > 0.995).astype(np.float32)
    image = 60 * ndimage.gaussian_filter(points, 1.0) + rng.normal(0, 0.2, points.shape)
    return image[None].astype(np.float32)


def named(image: np.ndarray) -> dict[str, float]:
    names = [name.removesuffix(" of the image") for block in image_names(1).values() for name in block]
    return dict(zip(names, measure_image(image), strict=True))


def test_names_are_apart_and_as_many_as_values_for_any_number_of_channels() -> None:
    for channels in (1, 3):
        names = [name for block in image_names(channels).values() for name in block]
        assert len(names) == len(set(names)) == len(measure_image(np.concatenate([vessels(size=16)] * channels)))


def test_each_channel_has_its_own_values_under_its_own_names() -> None:
    both = np.concatenate([vessels(0), 3 * vessels(1) - 1])
    names = [name for block in image_names(2).values() for name in block]
    values = dict(zip(names, measure_image(both), strict=True))
    for channel in range(2):
        for name, value in named(both[channel][None]).items():
            assert values[f"{name} of the image (channel {channel})"] == pytest.approx(value), name


def test_intensities_are_those_of_numpy_and_scipy() -> None:
    image = vessels()
    found = named(image)
    assert found["mean"] == pytest.approx(image.mean(), rel=1e-4)
    assert found["standard deviation"] == pytest.approx(image.std(), rel=1e-4)
    for p in (1, 50, 99):
        assert found[f"percentile {p}"] == pytest.approx(np.percentile(image, p), rel=1e-4)
    assert np.exp(found["kurtosis"]) - 1 == pytest.approx(stats.kurtosis(image, None, fisher=False), rel=1e-3)


def test_shares_at_the_limits_tell_a_clipped_image() -> None:
    image = vessels()
    low, high = np.percentile(image, (30, 90))
    clipped = named(image.clip(low, high))
    assert np.exp(clipped["share at the lowest value"]) == pytest.approx(0.31, abs=0.005)
    assert np.exp(clipped["share at the highest value"]) == pytest.approx(0.11, abs=0.005)
    assert max(np.exp(named(image)[f"share at the {end} value"]) for end in ("lowest", "highest")) < 0.02


def test_inverting_changes_the_sign_of_all_contrast_and_nothing_of_sharpness() -> None:
    plain, inverted = named(vessels()), named(5 - vessels())
    for name in CONTRAST:
        assert inverted[name] == pytest.approx(-plain[name], abs=1e-3), name
    for name in ("asymmetry", *(f"asymmetry of {scale} structure" for scale in SCALES)):
        assert plain[name] > 0.5, name
    sharpness = [name.removesuffix(" of the image") for name in image_names(1)[IMAGE_SHARPNESS]]
    for name in sharpness:
        assert inverted[name] == pytest.approx(plain[name], abs=1e-3), name


def test_gain_and_offset_change_neither_contrast_nor_sharpness() -> None:
    plain, other = named(vessels()), named(3 * vessels() + 7)
    for name in plain:
        if name not in INTENSITY:
            assert other[name] == pytest.approx(plain[name], abs=2e-3), name
    assert other["mean"] != pytest.approx(plain["mean"], abs=1)


@pytest.mark.parametrize("spoil", ["blur", "noise"])
def test_fine_structure_is_weaker_in_a_blurred_image_and_stronger_with_noise(spoil: str) -> None:
    image = vessels()
    if spoil == "blur":
        other, sign = ndimage.gaussian_filter(image, (0, 2, 2, 2)), -1
    else:
        other, sign = image + np.random.default_rng(1).normal(0, image.std(), image.shape), 1
    plain, found = named(image), named(other)
    for name in ("strength of fine structure", *(f"gradient along the {axis} axis" for axis in AXES)):
        assert sign * (found[name] - plain[name]) > 0.3, name
    for axis in AXES:
        assert sign * (found[f"roughness along the {axis} axis"] - plain[f"roughness along the {axis} axis"]) > 0.1


@pytest.mark.parametrize("blurred", range(3))
def test_blur_along_one_axis_shows_along_that_axis(blurred: int) -> None:
    image = vessels()
    sigma = [0.0, 0.0, 0.0, 0.0]
    sigma[1 + blurred] = 2.5
    plain, found = named(image), named(ndimage.gaussian_filter(image, sigma))
    lost = [plain[f"roughness along the {axis} axis"] - found[f"roughness along the {axis} axis"] for axis in AXES]
    assert np.argmax(lost) == blurred and lost[blurred] > 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 5), (2, 40, 40), (3, 2, 1)])
@pytest.mark.parametrize("content", [0.0, 3.0, None])
def test_numbers_are_finite_whatever_the_image(shape: tuple[int, ...], content: float | None) -> None:
    image = np.random.default_rng(0).normal(size=(1, *shape)) if content is None else np.full((1, *shape), content)
    assert np.isfinite(measure_image(image.astype(np.float32))).all()


def test_of_a_large_image_the_middle_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_3dct.inference.image_measurements.MOST_VOXELS", 32**3)
    image = vessels(size=64)
    np.testing.assert_allclose(measure_image(image), measure_image(image[:, 16:48, 16:48, 16:48]))


def test_blocks_are_those_of_the_layout() -> None:
    assert list(image_names(1)) == [WHOLE_IMAGE, IMAGE_CONTRAST, IMAGE_SHARPNESS]
