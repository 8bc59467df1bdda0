"""The longest diameter of a structure in an axial slice, as RECIST takes it of a lesion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import cdist

TOUCHING = np.ones((3, 3), bool)  # parts of a slice are connected by edges and corners


@dataclass(frozen=True)
class InPlane:
    """The longest diameter: its length in mm, the slice from 0, and its ends (row, column) in the slice."""

    length: float
    slice: int
    ends: tuple[tuple[float, float], tuple[float, float]]


def longest_diameter(mask: np.ndarray, axis: int, spacing: Sequence[float]) -> InPlane | None:
    """The longest straight line between two points of the outline of one connected part of a slice.

    The outline runs halfway between the centres of a voxel inside and of one outside, so that a single voxel is as
    long as its longer edge. The line may leave the structure, as it may in RECIST 1.1.

    Args:
        mask: boolean, three axes.
        axis: across the slices.
        spacing: of the voxels in mm along all three axes.

    Returns:
        None without a voxel.
    """
    pixel = np.array([size for n, size in enumerate(spacing) if n != axis], float)
    slices = np.moveaxis(mask, axis, 0)
    best: InPlane | None = None
    for bound, index in _by_bound(slices, pixel):
        if best is not None and bound <= best.length:
            break
        for points in _outlines(slices[index]):
            found = _farthest(points, pixel)
            if best is None or found[0] > best.length:
                ends = [(float(row), float(column)) for row, column in points[list(found[1])]]
                best = InPlane(found[0], index, (ends[0], ends[1]))
    return best


def _by_bound(slices: np.ndarray, pixel: np.ndarray) -> list[tuple[float, int]]:
    """Slices with voxels, with the diagonal of the box around these, which no diameter exceeds; longest first."""
    bounds = []
    for index in np.flatnonzero(slices.any(axis=(1, 2))):
        size = [np.ptp(np.flatnonzero(slices[index].any(axis=1 - a))) + 1 for a in (0, 1)]
        bounds.append((float(np.hypot(*(size * pixel))), int(index)))
    return sorted(bounds, reverse=True)


def _outlines(plane: np.ndarray) -> Iterator[np.ndarray]:
    """For each part of a slice the points ``(N, 2)`` of its outline among which the farthest two are."""
    parts, _ = ndimage.label(plane, TOUCHING)
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        inside = parts[box] == number
        offset = [s.start for s in box]
        points = []
        for along in (0, 1):  # of each row, then of each column, the first and the last point
            lines = inside if along == 0 else inside.T
            present = np.flatnonzero(lines.any(axis=1))
            first = lines[present].argmax(axis=1) - 0.5
            last = lines.shape[1] - 1 - lines[present][:, ::-1].argmax(axis=1) + 0.5
            for ends in (first, last):
                pair = (present, ends) if along == 0 else (ends, present)
                points.append(np.stack(pair, axis=1).astype(float))
        yield np.concatenate(points) + offset


def _farthest(points: np.ndarray, pixel: np.ndarray) -> tuple[float, tuple[int, int]]:
    distances = cdist(points * pixel, points * pixel)
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    return float(distances[first, second]), (int(first), int(second))
