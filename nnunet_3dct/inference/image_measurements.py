"""What can be measured of an image as a whole, without any network: whether it is of the kind that a model knows.

Three blocks, each about one way in which an image can be of another kind. Its intensities: normalised otherwise, in
another unit, cut to another window. The direction of its contrast: statistics of odd order change sign when light and
dark are swapped, whatever the histogram. Its sharpness: ratios of fine to coarse structure, which tell blur, noise and
thick slices at any gain. Ratios are logarithms and skewness enters as its cube root, so that their spread over cases is
nearly normal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from nnunet_3dct.networks.case_layout import IMAGE_CONTRAST, IMAGE_SHARPNESS, WHOLE_IMAGE

MOST_VOXELS = 4_000_000  # of the middle of an image that are looked at
SCALES = ("fine", "middle", "coarse")  # structure of about 1, 2 and 4 voxels
AXES = ("first", "second", "third")
SMALLEST = 12  # voxels of an axis that is still halved for the next scale
LEAST_SHARE = 0.01  # added to shares before their logarithm
LONGEST_TAIL = 5.0  # standard deviations at which structure is cut off
TINY = 1e-6

INTENSITY = ("mean", "standard deviation", *(f"percentile {p}" for p in (1, 50, 99)), "gradient", "fine structure",
             "share of fine structure", "kurtosis",
             "share at the lowest value", "share at the highest value")  # fmt: skip
CONTRAST = ("asymmetry", *(f"asymmetry of {scale} structure" for scale in SCALES),
            *(f"{scale} structure in bright places" for scale in SCALES))  # fmt: skip
SHARPNESS = (*(f"strength of {scale} structure" for scale in SCALES),
             *(f"evenness of {scale} structure" for scale in SCALES),
             *(f"{what} along the {axis} axis" for what in ("gradient", "roughness") for axis in AXES))  # fmt: skip


def image_names(channels: int) -> dict[str, list[str]]:
    """Names of what :func:`measure_image` gives, by block, in its order.

    Args:
        channels: of the image. With one, its number is left out of the names.
    """

    def of_all(names: Sequence[str]) -> list[str]:
        of = [f" of the image (channel {channel})" if channels > 1 else " of the image" for channel in range(channels)]
        return [f"{name}{end}" for end in of for name in names]

    return {WHOLE_IMAGE: of_all(INTENSITY), IMAGE_CONTRAST: of_all(CONTRAST), IMAGE_SHARPNESS: of_all(SHARPNESS)}


def measure_image(image: np.ndarray) -> np.ndarray:
    """Measure the middle of an image, ``MOST_VOXELS`` of it at most.

    Args:
        image: ``(C, Z, Y, X)``.

    Returns:
        Finite numbers in the order of :func:`image_names`.
    """
    kept = _kept_sizes(image.shape[1:])
    middle = tuple(
        slice((size - few) // 2, (size - few) // 2 + few) for size, few in zip(image.shape[1:], kept, strict=True)
    )
    of_channels = [_measure(channel[middle].astype(np.float32)) for channel in image]
    return np.array([value for block in zip(*of_channels, strict=True) for values in block for value in values])


def _kept_sizes(shape: Sequence[int]) -> list[int]:
    """Size of the middle of an image that holds ``MOST_VOXELS`` at most."""
    factor = min(1.0, (MOST_VOXELS / np.prod(np.asarray(shape, float))) ** (1 / 3))
    return [max(1, round(size * factor)) for size in shape]


def _measure(channel: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    spread = float(channel.std()) + TINY
    centered = channel - channel.mean()
    lighter: list[float] = []
    strength: list[float] = []
    evenness: list[float] = []
    asymmetry = [_asymmetry(centered, spread)]
    level, finest = channel, np.zeros_like(channel)
    for scale in SCALES:
        smooth = ndimage.gaussian_filter(level, 1.0)
        structure = level - smooth
        size = float(structure.std()) + TINY
        asymmetry.append(_asymmetry(structure, size))
        lighter.append(_correlation(smooth, np.minimum(np.abs(structure), LONGEST_TAIL * size)))
        strength.append(float(np.log(size / spread)))
        evenness.append(float(np.log(np.median(np.abs(structure)) / size + 1e-3)))
        if scale == SCALES[0]:
            finest = structure
        level = smooth[tuple(slice(None, None, 2 if length >= SMALLEST else 1) for length in smooth.shape)]
    return (
        _intensity(channel, finest),
        [*asymmetry, *lighter],
        [*strength, *evenness, *_along_axes(channel, spread)],
    )


def _intensity(channel: np.ndarray, finest: np.ndarray) -> list[float]:
    spread = float(channel.std())
    low, *percentiles, high = np.percentile(channel, (0, 1, 50, 99, 100)).tolist()
    margin = 1e-4 * (high - low) + TINY
    kurtosis = float(np.mean(((channel - channel.mean()) / (spread + TINY)) ** 4))
    return [
        float(channel.mean()),
        spread,
        *percentiles,
        float(ndimage.gaussian_gradient_magnitude(channel, 1.0).mean()),
        float(np.median(np.abs(finest))),
        float(np.log((finest.std() + TINY) / (spread + TINY))),
        float(np.log(kurtosis + 1)),
        float(np.log(np.mean(channel <= low + margin) + LEAST_SHARE)),
        float(np.log(np.mean(channel >= high - margin) + LEAST_SHARE)),
    ]


def _asymmetry(centered: np.ndarray, spread: float) -> float:
    """Cube root of the skewness, positive where the long tail is bright."""
    return float(np.cbrt(np.mean((centered / spread).clip(-LONGEST_TAIL, LONGEST_TAIL) ** 3)))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float(np.mean(first * second) / (first.std() * second.std() + TINY))


def _along_axes(channel: np.ndarray, spread: float) -> list[float]:
    """Strength of first differences along each axis, then that of second differences against them."""
    gradients: list[float] = []
    roughness: list[float] = []
    for axis, size in enumerate(channel.shape):
        first = np.diff(channel, axis=axis)
        energy = float(np.mean(first**2)) if size > 1 else 0.0
        second = float(np.mean(np.diff(first, axis=axis) ** 2)) if size > 2 else energy
        gradients.append(0.5 * float(np.log((energy + TINY**2) / spread**2 + 1e-8)))
        roughness.append(float(np.log((second + TINY) / (energy + TINY))))
    return [*gradients, *roughness]
