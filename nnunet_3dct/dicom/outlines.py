"""Outlines of a mask in a slice, as polygons without holes."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage import measure

_EIGHT = np.ones((3, 3), bool)


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed polygons around the pixels of a mask.

    They run halfway between the middles of pixels inside and outside, so that whoever fills them finds the pixels
    whose middles are inside: those of the mask, and no others. A part with holes is cut into parts without, side by
    side: neither a convention for inner outlines nor a bridge to them is needed.

    Args:
        mask: ``(rows, columns)``.

    Returns:
        Arrays ``(points, 2)`` of (row, column), the first point not repeated; 0 is the middle of the first pixel.
    """
    parts, count = ndimage.label(mask)
    found = []
    for number in range(1, count + 1):
        for piece in _without_holes(parts == number):
            padded = np.pad(piece, 1).astype(float)
            for line in measure.find_contours(padded, 0.5, fully_connected="low"):
                found.append(line[:-1] - 1)
    return found


def _without_holes(part: np.ndarray) -> list[np.ndarray]:
    """The part, or pieces of it; a hole is background that touches none outside, not even by a corner."""
    holes = ndimage.binary_fill_holes(part, _EIGHT) & ~part
    if not holes.any():
        return [part]
    rows = np.flatnonzero(ndimage.label(holes, _EIGHT)[0].max(axis=1))
    cut = int(rows[len(rows) // 2])
    pieces = []
    for half in (slice(None, cut + 1), slice(cut + 1, None)):
        piece = np.zeros_like(part)
        piece[half] = part[half]
        labelled, count = ndimage.label(piece)
        for number in range(1, count + 1):
            pieces += _without_holes(labelled == number)
    return pieces
