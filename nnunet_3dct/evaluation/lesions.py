"""Lesion-wise detection: connected parts of the reference found or missed, predicted parts that are no lesion."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np


@dataclass(frozen=True)
class Detection:
    """Numbers of lesions of one case."""

    reference: int
    found: int
    predicted: int
    false: int

    @property
    def missed(self) -> int:
        return self.reference - self.found


def detect_lesions(reference: np.ndarray, prediction: np.ndarray, overlap: float) -> Detection:
    """Count the lesions found, missed and invented.

    A lesion is a part of a mask whose voxels touch each other by a face, an edge or a corner. One of the reference is
    found if the prediction covers at least ``overlap`` of its voxels, whatever the number of predicted parts; a
    predicted one is false if the reference covers less than ``overlap`` of its voxels.

    Args:
        reference: boolean ``(Z, Y, X)``.
        prediction: as ``reference``.
        overlap: above 0, at most 1.
    """
    found, number = _covered(reference, prediction, overlap)
    true, predicted = _covered(prediction, reference, overlap)
    return Detection(number, found, predicted, predicted - true)


def _covered(mask: np.ndarray, cover: np.ndarray, overlap: float) -> tuple[int, int]:
    """Number of parts of ``mask`` of which at least a share of ``overlap`` lies in ``cover``, and of all parts."""
    parts, number = cc3d.connected_components(mask, connectivity=26, return_N=True)
    sizes = np.bincount(parts[mask], minlength=number + 1)[1:]
    inside = np.bincount(parts[mask & cover], minlength=number + 1)[1:]
    return int(np.count_nonzero(inside >= overlap * sizes)), int(number)
