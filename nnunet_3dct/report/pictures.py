"""Pictures of a case: three planes with outlines, a closer view of the target, the evidence for the class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nnunet_3dct.report.orientation import OrientedVolume
from nnunet_3dct.report.outlines import Outline, draw_outlines, outline_lines, svg_path
from nnunet_3dct.report.rasters import evidence_png, slice_png
from nnunet_3dct.report.slices import PLANES, Plane, Target, find_target

CLOSE_UP_MARGIN = 12.0  # mm around the target
CLOSE_UP_SHARE = 0.3  # of a picture's area; closer views that all show more add nothing
EVIDENCE_LEVEL = 0.5  # of the line around the strongest evidence


@dataclass(frozen=True, eq=False)
class Picture:
    """One slice.

    Attributes:
        plane: which of the three.
        number, count: the slice, from 1, and how many there are.
        width, height: in mm.
        image: the slice as PNG in a ``data:`` address, None without images.
        outlines: of prediction and reference.
        close_up: ``(x, y, width, height)`` in mm of the part around the target, None without a target.
        evidence: layer of the evidence as PNG, None without evidence.
        evidence_path: line around the evidence of at least a half.
    """

    plane: Plane
    number: int
    count: int
    width: float
    height: float
    image: str | None
    outlines: list[Outline]
    close_up: tuple[float, float, float, float] | None
    evidence: str | None
    evidence_path: str

    @property
    def scale_bar(self) -> int:
        """Length of the scale bar in mm: the longest round one that takes at most a third of the width."""
        return max((length for length in (5, 10, 20, 50, 100) if length <= self.width / 3), default=1)


@dataclass(frozen=True)
class Evidence:
    """Where the evidence lies: ``inside``, its share within each predicted structure, and how far its strongest voxel
    is from each shown slice (``distances`` in mm, by plane); both empty if the map is black."""

    inside: dict[str, float]
    distances: dict[str, float]


@dataclass(frozen=True)
class CasePictures:
    """Pictures of a case, the structure that they go through (None: none was found), and the evidence in numbers."""

    pictures: list[Picture]
    structure: str | None
    evidence: Evidence | None

    @property
    def close_ups(self) -> bool:
        """Whether closer views of the target are worth their place."""
        boxes = [(picture, picture.close_up) for picture in self.pictures if picture.close_up]
        return any(box[2] * box[3] <= CLOSE_UP_SHARE * p.width * p.height for p, box in boxes)


def draw_case(
    structures: Mapping[str, tuple[int, ...]],
    prediction: OrientedVolume,
    reference: OrientedVolume | None = None,
    evidence: OrientedVolume | None = None,
) -> CasePictures:
    """Draw all of a case but the image itself, which :func:`add_image` puts behind it.

    Args:
        structures: name -> voxel labels.
        prediction, reference: label volumes.
        evidence: 0 to 1.
    """
    volumes = [volume.array for volume in (prediction, reference) if volume]
    target = find_target(structures, *volumes)
    by_size = {name: structures[name] for name in target.by_size}
    pictures = [_draw(plane, target, by_size, prediction, reference, evidence) for plane in PLANES]
    described = _describe_evidence(evidence, prediction, target, structures) if evidence else None
    return CasePictures(pictures, target.structure, described)


def add_image(drawn: CasePictures, image: OrientedVolume, window: tuple[float, float]) -> CasePictures:
    """Return the pictures of a case with the slices of its image, the intensities of ``window`` from black to white."""
    pictures = [
        replace(picture, image=slice_png(picture.plane.cut(image.array, picture.number - 1), window))
        for picture in drawn.pictures
    ]
    return replace(drawn, pictures=pictures)


def _draw(
    plane: Plane,
    target: Target,
    structures: Mapping[str, tuple[int, ...]],
    prediction: OrientedVolume,
    reference: OrientedVolume | None,
    evidence: OrientedVolume | None,
) -> Picture:
    index = target.position[plane.axis]
    pixel = plane.pixel(prediction.spacing)
    outlines: list[Outline] = []
    for volume in (prediction, reference):
        if volume:
            labels = plane.cut(volume.array, index)
            outlines += draw_outlines(labels, structures, pixel, reference=volume is reference)
    rows, columns = plane.cut(prediction.array, index).shape
    shown = plane.cut(evidence.array, index) if evidence else None
    return Picture(
        plane,
        index + 1,
        prediction.array.shape[plane.axis],
        columns * pixel[1],
        rows * pixel[0],
        None,
        outlines,
        None if target.mask is None else _close_up(plane.cut(target.mask, index), pixel),
        None if shown is None else evidence_png(shown),
        "" if shown is None else svg_path(outline_lines(shown >= EVIDENCE_LEVEL, pixel)),
    )


def _close_up(mask: np.ndarray, pixel: tuple[float, float]) -> tuple[float, float, float, float]:
    """A square around the target, as far as the picture reaches: ``(x, y, width, height)``."""
    total = np.multiply(mask.shape, pixel)
    inside = np.argwhere(mask)
    low, high = inside.min(axis=0) * pixel, (inside.max(axis=0) + 1) * pixel
    side = np.minimum(np.max(high - low) + 2 * CLOSE_UP_MARGIN, total)
    top, left = np.clip((low + high - side) / 2, 0, total - side)
    return float(left), float(top), float(side[1]), float(side[0])


def _describe_evidence(
    volume: OrientedVolume, prediction: OrientedVolume, target: Target, structures: Mapping[str, tuple[int, ...]]
) -> Evidence:
    values = np.clip(np.nan_to_num(volume.array), 0, 1)
    total = float(values.sum(dtype=np.float64))
    if not total:
        return Evidence({}, {})
    inside = {
        name: float(values[np.isin(prediction.array, labels)].sum(dtype=np.float64)) / total
        for name, labels in structures.items()
    }
    strongest = np.unravel_index(int(values.argmax()), values.shape)
    distances = {
        plane.name: abs(int(strongest[plane.axis]) - target.position[plane.axis]) * volume.spacing[plane.axis]
        for plane in PLANES
    }
    return Evidence(inside, distances)
