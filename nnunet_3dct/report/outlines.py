"""Outlines of structures in a slice, in mm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from skimage.measure import find_contours


@dataclass(frozen=True, eq=False)
class Outline:
    """Outline of one structure in a slice.

    Attributes:
        structure: its name.
        reference: whether it is the reference's.
        lines: points ``(N, 2)`` of each line, down and across in mm from the upper left corner; the first point of a
            closed one is its last too.
        area: in cm².
    """

    structure: str
    reference: bool
    lines: tuple[np.ndarray, ...]
    area: float

    @property
    def path(self) -> str:
        """The lines as path data of an SVG."""
        return svg_path(self.lines)


def draw_outlines(
    labels: np.ndarray, structures: Mapping[str, tuple[int, ...]], pixel: tuple[float, float], *, reference: bool
) -> list[Outline]:
    """Outline the structures of a slice.

    Where two structures share a border, the later one draws it; two dashed lines on top of each other could not be told
    apart.

    Args:
        labels: label slice ``(H, W)``.
        structures: name -> voxel labels, in the order in which they are drawn.
        pixel: height and width of a pixel in mm.
        reference: whether this is the reference, drawn dashed.
    """
    masks = {name: np.isin(labels, members) for name, members in structures.items()}
    order = [name for name, mask in masks.items() if mask.any()]
    area = pixel[0] * pixel[1] / 100
    return [
        Outline(
            name,
            reference,
            outline_lines(masks[name], pixel, [masks[later] for later in order[position + 1 :]]),
            float(np.count_nonzero(masks[name]) * area),
        )
        for position, name in enumerate(order)
    ]


def outline_lines(
    mask: np.ndarray, pixel: tuple[float, float], drawn_later: Iterable[np.ndarray] = ()
) -> tuple[np.ndarray, ...]:
    """Return the border of ``mask`` ``(H, W)`` as lines in mm, without what masks that are drawn later share."""
    later = [np.pad(other, 1) for other in drawn_later]
    lines: list[np.ndarray] = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        # each point lies halfway between a pixel inside and one outside
        low, high = np.floor(contour).astype(int), np.ceil(contour).astype(int)
        hidden = np.zeros(len(contour), bool)
        for other in later:
            hidden |= other[tuple(low.T)] != other[tuple(high.T)]
        points = (contour - 0.5) * pixel  # minus the padding, plus half a pixel: its centre
        lines += [points[start:end] for start, end in _visible_runs(hidden)]
    return tuple(lines)


def svg_path(lines: Iterable[np.ndarray]) -> str:
    """Write lines of points ``(N, 2)``, down and across, as path data of an SVG."""
    return "".join(_line(points) for points in lines)


def _visible_runs(hidden: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of visible points, each with its hidden neighbours so that lines meet."""
    edges = np.flatnonzero(np.diff(np.r_[True, hidden, True].astype(np.int8)))
    return [(max(start - 1, 0), end + 1) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _line(points: np.ndarray) -> str:
    text = [f"{x:.1f} {y:.1f}" for y, x in points]
    if len(points) > 3 and np.array_equal(points[0], points[-1]):
        return f"M{'L'.join(text[:-1])}Z"
    return f"M{'L'.join(text)}"
