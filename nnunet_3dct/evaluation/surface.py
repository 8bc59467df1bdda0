"""Distances between the surfaces of two masks, by MONAI."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch


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
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    # MONAI 1.6 calls a function of its own in a way that it deprecates
    warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)
    axes = [axis for axis in range(reference.ndim) if axis > 0 or reference.shape[0] > 1]
    steps = [float(spacing[axis]) for axis in axes]
    either = reference | prediction
    box = []
    for axis in range(either.ndim):
        others = tuple(a for a in range(either.ndim) if a != axis)
        inside = np.flatnonzero(either.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))

    def one_hot(mask: np.ndarray) -> torch.Tensor:
        part = mask[tuple(box)]
        part = part.reshape([part.shape[axis] for axis in axes])
        return torch.from_numpy(np.pad(part, 1).astype(np.float32))[None, None]

    found, expected = one_hot(prediction), one_hot(reference)
    dice = compute_surface_dice(
        found, expected, [tolerance], include_background=True, spacing=steps, use_subvoxels=True
    )
    distance = compute_hausdorff_distance(found, expected, include_background=True, percentile=95, spacing=steps)
    return float(dice), float(distance)
