"""First-order and shape features of a segmented target, as radiomics uses them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats
from skimage import measure

PERCENTILES = (5, 25, 50, 75, 95)


def target_features(image: np.ndarray, mask: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """Intensities and shape of a target.

    Args:
        image: ``(C, Z, Y, X)``.
        mask: bool ``(Z, Y, X)``.
        spacing: of the voxels in mm, in the order of the axes.

    Returns:
        For each channel mean, standard deviation, skewness, kurtosis and percentiles; volume (ml), surface (cm²),
        sphericity, the standard deviations along the principal axes (mm) and the number of parts. NaN for all but
        the volume where the mask is empty, and for the surface where the mask is flat.
    """
    voxel = float(np.prod(spacing))
    found: dict[str, float] = {"volume": float(mask.sum()) * voxel / 1000}
    for channel, values in enumerate(image):
        found |= {f"channel_{channel}_{k}": v for k, v in _first_order(values[mask]).items()}
    return found | _shape(mask, np.asarray(spacing, float), found["volume"])


def _first_order(values: np.ndarray) -> dict[str, float]:
    values = values.astype(float)
    names = ["mean", "std", "skewness", "kurtosis", *(f"percentile_{p}" for p in PERCENTILES)]
    if len(values) == 0:
        return dict.fromkeys(names, float("nan"))
    spread = len(np.unique(values)) > 1
    moments = [values.mean(), values.std(), *((stats.skew(values), stats.kurtosis(values)) if spread else (0.0, 0.0))]
    return dict(zip(names, map(float, [*moments, *np.percentile(values, PERCENTILES)]), strict=True))


def _shape(mask: np.ndarray, spacing: np.ndarray, volume_ml: float) -> dict[str, float]:
    names = ("surface", "sphericity", "axis_1", "axis_2", "axis_3", "parts")
    if not mask.any():
        return dict.fromkeys(names, float("nan"))
    points = np.argwhere(mask) * spacing
    axes = np.zeros(3)
    if len(points) > 1:
        axes[: mask.ndim] = np.sqrt(np.clip(np.linalg.eigvalsh(np.atleast_2d(np.cov(points.T))), 0, None))[::-1]
    padded = np.pad(mask, 1)
    surface = float("nan")
    if mask.ndim == 3:
        vertices, faces, *_ = measure.marching_cubes(padded.astype(np.uint8), 0.5, spacing=tuple(spacing))
        surface = measure.mesh_surface_area(vertices, faces) / 100
    sphericity = np.pi ** (1 / 3) * (6 * volume_ml) ** (2 / 3) / surface
    parts = measure.label(mask, return_num=True)[1]
    return dict(zip(names, map(float, [surface, sphericity, *axes, parts]), strict=True))
