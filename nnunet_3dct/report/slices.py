"""Which slices of a case are shown, and how a volume is cut.

Volumes ``(Z, Y, X)`` are oriented as :mod:`nnunet_3dct.report.grids` does it. Pictures follow radiological custom: seen
from the feet in axial slices, so that the patient's right is at the left of the picture, and the head up in the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cc3d
import numpy as np


@dataclass(frozen=True)
class Plane:
    """One of the three planes.

    Attributes:
        name: ``axial``, ``coronal`` or ``sagittal``.
        axis: of the volume, across the plane.
        counted_from: where slice 1 lies.
        sides: of the patient at the top, right, bottom and left of the picture.
    """

    name: str
    axis: int
    counted_from: str
    sides: tuple[str, str, str, str]

    def cut(self, volume: np.ndarray, index: int) -> np.ndarray:
        """Return slice ``index`` as rows and columns of the picture."""
        rows: np.ndarray = volume.take(index, axis=self.axis)
        return rows if self.axis == 0 else rows[::-1]

    def pixel(self, spacing: tuple[float, float, float]) -> tuple[float, float]:
        """Return height and width of a pixel in mm, from the ``(z, y, x)`` spacing."""
        height, width = (value for axis, value in enumerate(spacing) if axis != self.axis)
        return height, width


PLANES = (
    Plane("axial", 0, "the feet", ("A", "L", "P", "R")),
    Plane("coronal", 1, "the front", ("H", "L", "F", "R")),
    Plane("sagittal", 2, "the patient's right", ("H", "P", "F", "A")),
)


@dataclass(frozen=True)
class Target:
    """What the slices go through.

    Attributes:
        structure: its name, None if there is no structure in the case.
        position: ``(z, y, x)`` voxel indices of the slices.
        mask: voxels of the structure in any of the label volumes.
        by_size: all structures, the largest in the case first.
    """

    structure: str | None
    position: tuple[int, int, int]
    mask: np.ndarray | None
    by_size: tuple[str, ...]


def find_target(structures: Mapping[str, tuple[int, ...]], *volumes: np.ndarray) -> Target:
    """Choose the slices with the largest area of the rarest structure, else the middle of the volume.

    The rarest structure is the one with the fewest voxels, above 0, in any of the label volumes; of several connected
    parts the largest counts.

    Args:
        structures: name -> voxel labels.
        volumes: label volumes ``(Z, Y, X)`` of prediction and, if there is one, reference.
    """
    masks = {
        name: np.logical_or.reduce([np.isin(volume, labels) for volume in volumes])
        for name, labels in structures.items()
    }
    sizes = {name: np.count_nonzero(mask) for name, mask in masks.items()}
    by_size = tuple(sorted(sizes, key=lambda name: -sizes[name]))
    rarest = next((name for name in reversed(by_size) if sizes[name]), None)
    if rarest is None:
        depth, height, width = volumes[0].shape
        return Target(None, (depth // 2, height // 2, width // 2), None, by_size)
    part = cc3d.largest_k(masks[rarest], 1) > 0
    z, y, x = (int(np.argmax(part.sum(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3))
    return Target(rarest, (z, y, x), masks[rarest], by_size)
