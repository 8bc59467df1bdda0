"""Contours of an RTSTRUCT as masks on the slices on which they were drawn."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from skimage.measure import grid_points_in_poly

from nnunet_3dct.dicom.planes import MaskPlanes
from nnunet_3dct.dicom.stack import Stack
from nnunet_3dct.dicom.tags import items, number, numbers, text
from nnunet_3dct.errors import ImageError

_FLAT = 0.2  # of the spacing: a contour in a slice
_SAME = 0.1  # of the spacing: contours in one plane
_DIGITS = 3  # of coordinates in pixels, so that points meant to be on the centre of a pixel are
_KINDS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def structure_planes(dataset: Dataset, stack: Stack, case: str) -> tuple[dict[str, MaskPlanes], list[str]]:
    """Masks of the regions by name, and what was changed.

    A pixel belongs to a region where its centre lies inside of an odd number of contours or on one, so that a contour
    within another one is a hole.

    Args:
        dataset: of the RTSTRUCT.
        stack: slices on which it was drawn.
        case: for messages.

    Raises:
        ImageError: contours do not lie in the planes of the slices.
    """
    names = {
        int(item.ROINumber): text(item, "ROIName") or f"region_{item.ROINumber}"
        for item in items(dataset, "StructureSetROISequence")
    }
    contours: dict[str, list[np.ndarray]] = defaultdict(list)
    skipped: Counter[str] = Counter()
    for region in items(dataset, "ROIContourSequence"):
        name = names.get(int(number(region, "ReferencedROINumber") or -1))
        for contour in items(region, "ContourSequence") if name else []:
            points = np.array(numbers(contour, "ContourData")).reshape(-1, 3)
            kind = text(contour, "ContourGeometricType").upper()
            if kind in _KINDS and len(points) > 2:
                contours[name or ""].append(_in_stack(points, stack))
            else:
                skipped[kind.lower() or "unknown"] += 1
    repairs = [f"{count} contours left out: {kind}, no area" for kind, count in skipped.items()]
    return {name: _planes(name, found, stack, case) for name, found in contours.items()}, repairs


def _in_stack(points: np.ndarray, stack: Stack) -> np.ndarray:
    """Points (n, 3) in mm along the axes of the stack, from the first pixel of the first slice."""
    return np.asarray((points - stack.origin) @ stack.axes)


def _planes(name: str, contours: Sequence[np.ndarray], stack: Stack, case: str) -> MaskPlanes:
    thick = [contour for contour in contours if np.ptp(contour[:, 2]) > _FLAT * stack.step]
    if thick:
        raise ImageError(
            f"{case}: expected contours of {name!r} in the planes of the slices, found {len(thick)} of {len(contours)} "
            "that cross them. Give the series on which they were drawn."
        )
    by_plane: list[tuple[float, list[np.ndarray]]] = []
    for contour in sorted(contours, key=lambda item: float(item[:, 2].mean())):
        height = float(contour[:, 2].mean())
        if by_plane and height - by_plane[-1][0] < _SAME * stack.step:
            by_plane[-1][1].append(contour)
        else:
            by_plane.append((height, [contour]))
    heights = np.array([height for height, _ in by_plane])
    nearest = np.abs(stack.distances[None] - heights[:, None]).argmin(axis=1)
    shifts = stack.shifts[nearest]
    columns, rows = stack.planes[0][0].size
    masks = np.stack(
        [
            _filled([(contour[:, :2] - shift) / stack.pixel for contour in group], (rows, columns))
            for (_, group), shift in zip(by_plane, shifts, strict=True)
        ]
    )
    origins = stack.origin + shifts @ stack.axes[:, :2].T + np.outer(heights, stack.axes[:, 2])
    gaps = np.diff(heights)
    reach = max(float(gaps.min()) if len(gaps) else 0.0, stack.step) / 2
    return MaskPlanes(stack.axes, stack.pixel, origins, masks, reach)


def _filled(contours: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels inside of contours whose points (n, 2) are columns and rows."""
    inside, edge = np.zeros(shape, bool), np.zeros(shape, bool)
    for contour in contours:
        points = np.round(contour[:, ::-1], _DIGITS)  # rows and columns
        first = np.clip(np.floor(points.min(axis=0)).astype(int), 0, shape)
        last = np.clip(np.ceil(points.max(axis=0)).astype(int) + 1, 0, shape)
        if (last <= first).any():
            continue
        part = (slice(first[0], last[0]), slice(first[1], last[1]))
        places = grid_points_in_poly(tuple(last - first), points - first, binarize=False)
        inside[part] ^= places == 1
        edge[part] |= places > 1
    return inside | edge
