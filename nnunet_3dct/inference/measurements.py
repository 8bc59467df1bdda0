"""What can be measured of a segmented target: intensities inside and around it, its edge, its shape.

The same statistics as radiomics takes (first-order and shape features of the Image Biomarker Standardisation
Initiative, Zwanenburg et al. 2020), and the profile of the intensities by the distance from the target's surface. A
predicted outline is never exact: everything is measured under several outlines, those of different probability, and
averaged.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, stats
from skimage import measure

from nnunet_3dct.inference.image_measurements import MOST_VOXELS, image_names, measure_image

LEVELS = (0.1, 0.2, 0.4)  # probabilities of the target at which it is outlined
PERCENTILES = (5, 25, 50, 75, 95)
SHELLS = (-np.inf, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 7.0)  # signed distances from the surface, in units
UNIT = 1.5  # mm; the voxels' own size where that is larger
AROUND = 8.0  # units of surroundings that are looked at

FIRST_ORDER = ("mean", "standard deviation", "skewness", "kurtosis", *(f"percentile {p}" for p in PERCENTILES))
SHELL_NAMES = ("core", "below the rim", "inner rim", "outer rim", "around the rim", "surroundings", "far surroundings")
EDGE = ("gradient inside", "gradient at the edge", "coarse structure", "fine structure")
SHAPE = ("volume", "volume of all parts", "surface", "sphericity", "longest axis", "middle axis", "shortest axis",
         "elongation", "parts", "certainty")  # fmt: skip


def measurement_names(channels: int) -> dict[str, list[str]]:
    """Names of what :func:`measure_case` gives, by block, in its order.

    Args:
        channels: of the image. With one, its number is left out of the names.
    """
    blocks: dict[str, list[str]] = {}
    for channel in range(channels):
        of = f" of channel {channel}" if channels > 1 else ""
        blocks.setdefault("intensity", []).extend(f"{name}{of}" for name in FIRST_ORDER)
        for what in ("mean", "spread"):
            blocks.setdefault("profile", []).extend(f"{what} in the {name}{of}" for name in SHELL_NAMES)
        blocks.setdefault("edge", []).extend(f"{name}{of}" for name in EDGE)
    return {**blocks, "shape": list(SHAPE), **image_names(channels)}


def measured_width(channels: int) -> int:
    """Length of what :func:`measure_case` gives."""
    return sum(len(names) for names in measurement_names(channels).values())


def measure_case(
    image: np.ndarray, probability: np.ndarray, spacing: Sequence[float], names: Sequence[str] | None = None
) -> np.ndarray:
    """Measure the target and the image as a whole.

    What is measured of the image tells whether a case is like the training cases at all, and nothing of its class.

    Args:
        image: ``(C, Z, Y, X)``.
        probability: of the target, ``(Z, Y, X)``.
        spacing: of the voxels in mm, in the order of the axes.
        names: of what is wanted; None for all in the order of :func:`measurement_names`. A head that was fitted before
            something was added asks for less.

    Returns:
        A value for each name; see :func:`measure_target`.

    Raises:
        ValueError: there is no measurement of a name.
    """
    values = np.concatenate([measure_target(image, probability, spacing), measure_image(image)])
    if names is None:
        return values
    known = [name for block in measurement_names(len(image)).values() for name in block]
    unknown = sorted(set(names).difference(known))
    if unknown:
        raise ValueError(f"names: expected measurements that this version knows, found {unknown}. Fit the head again.")
    return values[[known.index(name) for name in names]]


def measure_target(image: np.ndarray, probability: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Measure the most plausible part of a target, the one that holds most of the probability.

    Args:
        image: ``(C, Z, Y, X)``.
        probability: of the target, ``(Z, Y, X)``; an outline of ones and zeros does as well.
        spacing: of the voxels in mm, in the order of the axes.

    Returns:
        All blocks of :func:`measurement_names` but those of the image, NaN in all places where no voxel reaches the
        lowest of ``LEVELS``. Sizes are logarithms (ml, cm², mm), distances in mm.
    """
    of_image = sum(len(names) for names in image_names(len(image)).values())
    width = measured_width(len(image)) - of_image
    sizes = np.asarray(spacing, float)
    likely = probability > LEVELS[0]
    if not likely.any():
        return np.full(width, np.nan)
    image, probability, sizes = _around(image, probability, likely, sizes)
    parts = [_part(probability, level) for level in LEVELS]
    outlines = [part for part in parts if part is not None]
    found = [_measure(image.astype(np.float32), probability, outline, sizes) for outline in outlines]
    return np.mean(found, axis=0)


def _around(
    image: np.ndarray, probability: np.ndarray, likely: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target and surroundings cut out; a large region is thinned out."""
    margin = np.ceil(AROUND * _unit(sizes) / sizes).astype(int)
    region = []
    for axis, most in enumerate(likely.shape):
        at = np.flatnonzero(likely.any(tuple(other for other in range(3) if other != axis)))
        region.append(slice(max(0, at[0] - margin[axis]), min(most, at[-1] + 1 + margin[axis])))
    cut: tuple[slice, ...] = (slice(None), *region)
    image, probability = image[cut], probability[cut[1:]]
    while probability.size > MOST_VOXELS:
        finest = sizes < 1.5 * sizes.min()
        cut = (slice(None), *(slice(None, None, 2 if fine else 1) for fine in finest))
        image, probability, sizes = image[cut], probability[cut[1:]], sizes * np.where(finest, 2, 1)
    return image, probability, sizes


def _unit(sizes: np.ndarray) -> float:
    return max(UNIT, float(np.median(sizes)))


def _part(probability: np.ndarray, level: float) -> np.ndarray | None:
    mask = probability > level
    parts, count = ndimage.label(mask)
    if count == 0:
        return None
    if count == 1:
        return mask
    mass = ndimage.sum_labels(probability, parts, np.arange(1, count + 1))
    return parts == 1 + int(np.argmax(mass))


def _measure(image: np.ndarray, probability: np.ndarray, outline: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    unit = _unit(sizes)
    distance = ndimage.distance_transform_edt(~outline, sampling=sizes)
    distance -= ndimage.distance_transform_edt(np.pad(outline, 1), sampling=sizes)[1:-1, 1:-1, 1:-1]
    distance /= unit
    intensity: list[float] = []
    profile: list[float] = []
    edge: list[float] = []
    for channel in image:
        intensity += _first_order(channel[outline])
        profile += _profile(channel, outline, distance)
        edge += _edge(channel, outline, distance, unit / sizes)
    return np.array([*intensity, *profile, *edge, *_shape(probability, outline, sizes)])


def _first_order(values: np.ndarray) -> list[float]:
    values = values.astype(float)
    spread = float(values.std())
    moments = [float(stats.skew(values)), float(stats.kurtosis(values))] if spread > 1e-6 else [0.0, 0.0]
    return [float(values.mean()), spread, *moments, *np.percentile(values, PERCENTILES).tolist()]


def _profile(channel: np.ndarray, outline: np.ndarray, distance: np.ndarray) -> list[float]:
    """Means, then spreads of the shells; one too small to say anything takes those of the next one inside it."""
    means: list[float] = []
    spreads: list[float] = []
    for low, high in itertools.pairwise(SHELLS):
        values = channel[(distance > low) & (distance <= high)]
        if len(values) >= 3:
            means.append(float(values.mean()))
            spreads.append(float(values.std()))
        elif means:
            means.append(means[-1])
            spreads.append(spreads[-1])
        else:
            inside = channel[outline]
            means.append(float(inside.mean()))
            spreads.append(float(inside.std()))
    return [*means, *spreads]


def _edge(channel: np.ndarray, outline: np.ndarray, distance: np.ndarray, voxels: np.ndarray) -> list[float]:
    """Gradients per unit and structure on two scales; ``voxels`` that a unit holds along each axis."""
    gradient = ndimage.gaussian_gradient_magnitude(channel, 0.7 * voxels)
    border = np.abs(distance) <= 1
    smooth, smoother = (ndimage.gaussian_filter(channel, scale * voxels) for scale in (0.7, 1.5))
    near = distance <= 1
    return [
        float(gradient[outline].mean()),
        float(gradient[border].mean()) if border.any() else float(gradient[outline].mean()),
        float((smooth - smoother)[near].std()),
        float((channel - smooth)[near].std()),
    ]


def _shape(probability: np.ndarray, outline: np.ndarray, sizes: np.ndarray) -> list[float]:
    voxel = float(sizes.prod())
    volume = float(outline.sum()) * voxel
    surface = _surface(outline, sizes)
    points = np.argwhere(outline) * sizes
    covariance = np.atleast_2d(np.cov(points.T)) if len(points) > 1 else np.zeros((3, 3))
    covariance = covariance + np.diag(sizes**2) / 12  # a voxel is no point
    axes = np.sqrt(np.linalg.eigvalsh(covariance))[::-1]
    parts = ndimage.label(probability > 0.5)[1]
    return [
        np.log(volume / 1000),
        np.log(max(float((probability > 0.5).sum()), 1.0) * voxel / 1000),
        np.log(surface / 100),
        np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface,
        *np.log(axes),
        axes[2] / axes[0],
        np.log1p(parts),
        float(np.percentile(probability[outline], 90)),
    ]


def _surface(outline: np.ndarray, sizes: np.ndarray) -> float:
    vertices, faces, *_ = measure.marching_cubes(np.pad(outline, 1).astype(np.uint8), 0.5, spacing=tuple(sizes))
    return float(measure.mesh_surface_area(vertices, faces))
