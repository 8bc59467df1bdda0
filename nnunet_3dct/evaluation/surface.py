"""Distances between the surfaces of two masks, by MONAI."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


@contextlib.contextmanager
def quiet_monai() -> Iterator[None]:
    """Silence a warning of MONAI 1.6 about a call within MONAI itself.

    Filters of warnings belong to the whole process, so this has to be entered around threads, not within them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)
        yield


def surface_metrics(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], tolerance: float
) -> tuple[float, float]:
    """Compute surface Dice and the 95 % Hausdorff distance.

    Surface Dice (normalised surface Dice) is the share of both surfaces, by area, that lies within ``tolerance`` of
    the other one (Nikolov et al. 2021). The Hausdorff distance is the larger of the two directed 95 % percentiles
    between the boundary voxels.

    Args:
        reference: boolean ``(Z, Y, X)``, not empty; a single slice counts as a 2D image.
        prediction: as ``reference``.
        spacing: mm between voxels along each axis.
        tolerance: in mm.

    Returns:
        Surface Dice from 0 to 1, and the distance in mm.
    """
    # imported here because MONAI brings in torch, which nothing else of the evaluation needs
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice
    from monai.utils.type_conversion import convert_to_tensor

    axes = [axis for axis in range(reference.ndim) if axis > 0 or reference.shape[0] > 1]
    steps = [float(spacing[axis]) for axis in axes]
    box = _bounding_box(reference | prediction)

    def one_hot(mask: np.ndarray) -> Any:
        part = mask[box]
        part = part.reshape([part.shape[axis] for axis in axes])
        return convert_to_tensor(np.pad(part, 1).astype(np.float32)[None, None])

    predicted, expected = one_hot(prediction), one_hot(reference)
    dice = compute_surface_dice(
        predicted, expected, [tolerance], include_background=True, spacing=steps, use_subvoxels=True
    )
    distance = compute_hausdorff_distance(predicted, expected, include_background=True, percentile=95, spacing=steps)
    return float(dice), float(distance)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Smallest box around the voxels of ``mask``, which is not empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)
