"""Masks on parallel planes, as DICOM-SEG and RTSTRUCT hold them, brought onto the grid of a volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK

from nnunet_3dct.dicom.stack import Stack

_PARALLEL = 0.9999  # cosine (0.8 degrees)
_ON_GRID = 0.05  # of a pixel
_ROUNDING = 1e-3  # of a pixel


@dataclass(frozen=True)
class MaskPlanes:
    """A mask on planes, which may be any of those of a grid.

    Attributes:
        axes: 3 x 3, columns: direction along a row, along a column, and their normal.
        pixel: spacing between columns and between rows in mm.
        origins: (n, 3) centre of the first pixel of each plane in mm.
        masks: (n, Y, X), bool.
        reach: how far from a plane, along the normal, its mask holds, in mm; where planes meet the nearer one counts.
    """

    axes: np.ndarray
    pixel: tuple[float, float]
    origins: np.ndarray
    masks: np.ndarray
    reach: float

    @property
    def heights(self) -> np.ndarray:
        """(n,) of the planes along their normal, in mm."""
        return np.asarray(self.origins @ self.axes[:, 2])


def on_planes_of(masks: MaskPlanes, stack: Stack) -> MaskPlanes:
    """The same with an empty plane at every slice of ``stack`` without a mask, where masks were drawn on its slices.

    Between unevenly spaced slices the nearer one counts, which takes knowing those without a mask. Masks that were not
    drawn on these slices are returned as they are.
    """
    if abs(float(masks.axes[:, 2] @ stack.axes[:, 2])) < _PARALLEL or len(stack.distances) < 2:
        return masks
    places = stack.origin + stack.shifts @ stack.axes[:, :2].T + np.outer(stack.distances, stack.axes[:, 2])
    heights = places @ masks.axes[:, 2]
    away = np.abs(masks.heights[:, None] - heights[None]).min(axis=1)
    gaps = np.abs(np.diff(heights))
    if away.max() > 0.1 * gaps.min():
        return masks
    empty = np.abs(heights[:, None] - masks.heights[None]).min(axis=1) > 0.1 * gaps.min()
    return MaskPlanes(
        masks.axes,
        masks.pixel,
        np.concatenate([masks.origins, places[empty]]),
        np.concatenate([masks.masks, np.zeros((int(empty.sum()), *masks.masks.shape[1:]), bool)]),
        0.5 * float(gaps.max()),
    )


def sample(masks: MaskPlanes, image: SimpleITK.Image) -> tuple[np.ndarray, bool]:
    """Mask of ``image`` (Z, Y, X), bool, by the nearest pixel; and whether its voxels are pixels of the planes."""
    direction = np.reshape(image.GetDirection(), (3, 3))
    cosines = masks.axes.T @ direction  # rows: axes of the planes; columns: axes of the image
    partner = np.abs(cosines).argmax(axis=1)
    aligned = bool((np.abs(cosines).max(axis=1) > _PARALLEL).all()) and len(set(partner.tolist())) == 3
    if not aligned:
        return _sample_anyhow(masks, image), False
    spacing, size = np.asarray(image.GetSpacing()), image.GetSize()
    steps = [spacing[axis] * cosines[row, axis] for row, axis in enumerate(partner)]
    start = (np.asarray(image.GetOrigin()) - masks.origins[0]) @ masks.axes
    along = [start[row] + np.arange(size[axis]) * steps[row] for row, axis in enumerate(partner)]
    shifts = (masks.origins - masks.origins[0]) @ masks.axes
    nearest, away = _nearest(along[2], shifts[:, 2])
    rows, columns = masks.masks.shape[1:]
    # axes: normal, column direction, row direction
    found = np.zeros([size[axis] for axis in partner[::-1]], bool)
    exact = all(abs(abs(step) / pixel - 1) < _ROUNDING for step, pixel in zip(steps[:2], masks.pixel, strict=True))
    for number, (plane, distance) in enumerate(zip(nearest.tolist(), away.tolist(), strict=True)):
        if distance > masks.reach * (1 + 1e-6) or not masks.masks[plane].any():
            continue
        x = (along[0] - shifts[plane, 0]) / masks.pixel[0]
        y = (along[1] - shifts[plane, 1]) / masks.pixel[1]
        exact &= distance < _ON_GRID * abs(steps[2]) and max(_off(x), _off(y)) < _ON_GRID
        take_x, take_y = _indices(x), _indices(y)
        inside_x, inside_y = (take_x >= 0) & (take_x < columns), (take_y >= 0) & (take_y < rows)
        found[number][np.ix_(inside_y, inside_x)] = masks.masks[plane][np.ix_(take_y[inside_y], take_x[inside_x])]
    # from (normal, column, row) to the image's (z, y, x)
    order = [int(np.flatnonzero(partner[::-1] == axis)[0]) for axis in (2, 1, 0)]
    return np.ascontiguousarray(found.transpose(order)), exact


def _sample_anyhow(masks: MaskPlanes, image: SimpleITK.Image) -> np.ndarray:
    """Planes that are turned against the image: slice by slice of the image."""
    direction, spacing = np.reshape(image.GetDirection(), (3, 3)), np.asarray(image.GetSpacing())
    width, height, depth = image.GetSize()
    turn = masks.axes.T @ direction * spacing
    start = masks.axes.T @ (np.asarray(image.GetOrigin()) - masks.origins[0])
    shifts = (masks.origins - masks.origins[0]) @ masks.axes
    y, x = np.mgrid[:height, :width]
    in_slice = [turn[row, 0] * x + turn[row, 1] * y for row in range(3)]
    found = np.zeros((depth, height, width), bool)
    rows, columns = masks.masks.shape[1:]
    for z in range(depth):
        along = [start[row] + turn[row, 2] * z + in_slice[row] for row in range(3)]
        plane, away = _nearest(along[2], shifts[:, 2])
        take_x = _indices((along[0] - shifts[plane, 0]) / masks.pixel[0])
        take_y = _indices((along[1] - shifts[plane, 1]) / masks.pixel[1])
        inside = (take_x >= 0) & (take_x < columns) & (take_y >= 0) & (take_y < rows) & (away <= masks.reach)
        found[z][inside] = masks.masks[plane[inside], take_y[inside], take_x[inside]]
    return found


def _nearest(wanted: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest plane, and its distance."""
    order = np.argsort(heights)
    ascending = heights[order]
    after = np.clip(np.searchsorted(ascending, wanted), 0, len(ascending) - 1)
    before = np.clip(after - 1, 0, None)
    nearer = np.where(np.abs(wanted - ascending[before]) <= np.abs(ascending[after] - wanted), before, after)
    return order[nearer], np.abs(ascending[nearer] - wanted)


def _indices(coordinates: np.ndarray) -> np.ndarray:
    return np.floor(coordinates + 0.5).astype(np.intp)


def _off(coordinates: np.ndarray) -> float:
    return float(np.abs(coordinates - np.round(coordinates)).max())
