"""One slice of a series: where it lies and where its pixels are stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from nnunet_3dct.dicom.identifiers import patient_key
from nnunet_3dct.dicom.tags import TaggedFile, items, number, numbers

_SAME_DIRECTION = 0.9999  # cosine of the angle between slices of one stack (0.8 degrees)
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Slice:
    """A slice, or a frame of a multi-frame file.

    Attributes:
        file: that holds its pixels.
        frame: index in the file, None where the file holds one slice.
        instance: number that scanner or software gave it; of a frame its number in the file, from 1.
        position: centre of the first pixel in mm (patient's left, posterior, superior), None where not given.
        row, column: direction along a row and along a column, None where not given.
        spacing: between columns and between rows in mm, None where not given.
        size: columns and rows.
        thickness: spacing to the next slice as the tags tell it, in mm, None where they do not.
        rescale: slope and intercept; None where not given.
        patient: key of the patient.
    """

    file: Path
    frame: int | None
    instance: int | None
    position: Vector | None
    row: Vector | None
    column: Vector | None
    spacing: tuple[float, float] | None
    size: tuple[int, int]
    thickness: float | None
    rescale: tuple[float, float] | None
    patient: str

    @property
    def number(self) -> str:
        """What messages call it."""
        return "without number" if self.instance is None else str(self.instance)

    @property
    def normal(self) -> np.ndarray:
        """Row direction x column direction; zeros where they are not given."""
        if self.row is None or self.column is None:
            return np.zeros(3)
        return np.cross(self.row, self.column)


def slices_of(file: TaggedFile) -> list[Slice]:
    """The slices that a file of an image series holds."""
    tags = file.tags
    frames = items(tags, "PerFrameFunctionalGroupsSequence")
    if not frames:
        return [_slice(file, None, number(tags, "InstanceNumber"), [tags])]
    shared = items(tags, "SharedFunctionalGroupsSequence")[:1]
    return [_slice(file, index, index + 1, [frame, *shared, tags]) for index, frame in enumerate(frames)]


def stacks_of(slices: list[Slice]) -> list[list[Slice]]:
    """Slices by orientation, in an order that does not depend on that of the files."""
    stacks: list[tuple[np.ndarray, list[Slice]]] = []
    for item in slices:
        axes = np.array([item.row or (0, 0, 0), item.column or (0, 0, 0)])
        for known, stack in stacks:
            same = (known * axes).sum(axis=1)
            if (same > _SAME_DIRECTION).all() or not (known.any() or axes.any()):
                stack.append(item)
                break
        else:
            stacks.append((axes, [item]))
    return [stack for _, stack in sorted(stacks, key=lambda found: np.round(found[0], 2).ravel().tolist())]


def by_position(slices: list[Slice]) -> list[Slice]:
    """Slices sorted along their normal; by instance number where some do not say where they lie."""
    normal = slices[0].normal
    if all(item.position is not None for item in slices) and normal.any():
        return sorted(
            slices, key=lambda item: (float(np.dot(normal, item.position or ())), item.instance or 0, item.file)
        )
    return sorted(slices, key=lambda item: (item.instance or 0, item.file))


def plane_axes(row: Sequence[float], column: Sequence[float]) -> np.ndarray:
    """Orthonormal axes (3 x 3, columns: along a row, along a column, normal) nearest to directions that tags round."""
    along_row = np.asarray(row, float) / np.linalg.norm(row)
    along_column = np.asarray(column, float) - along_row * float(along_row @ np.asarray(column, float))
    along_column /= np.linalg.norm(along_column)
    return np.stack([along_row, along_column, np.cross(along_row, along_column)], axis=1)


def _slice(file: TaggedFile, frame: int | None, instance: float | None, groups: list[Dataset]) -> Slice:
    orientation = _found(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = _found(groups, "PixelMeasuresSequence", "PixelSpacing", 2)
    between = _found(groups, "PixelMeasuresSequence", "SpacingBetweenSlices", 1)
    thickness = between or _found(groups, "PixelMeasuresSequence", "SliceThickness", 1)
    slope = _found(groups, "PixelValueTransformationSequence", "RescaleSlope", 1)
    intercept = _found(groups, "PixelValueTransformationSequence", "RescaleIntercept", 1)
    position = _found(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
    tags = file.tags
    return Slice(
        file=file.path,
        frame=frame,
        instance=None if instance is None else int(instance),
        position=_vector(position),
        row=_unit(orientation[:3]),
        column=_unit(orientation[3:]),
        spacing=(spacing[1], spacing[0]) if spacing and min(spacing) > 0 else None,
        size=(int(number(tags, "Columns") or 0), int(number(tags, "Rows") or 0)),
        thickness=abs(thickness[0]) if thickness and thickness[0] else None,
        rescale=(slope[0], intercept[0] if intercept else 0.0) if slope else None,
        patient=patient_key(tags),
    )


def _found(groups: list[Dataset], sequence: str, keyword: str, length: int) -> tuple[float, ...]:
    """Numbers from the first group that has them, in a sequence of it or in itself; empty where none has."""
    for group in groups:
        for place in (*items(group, sequence)[:1], group):
            values = numbers(place, keyword)
            if len(values) == length and all(math.isfinite(value) for value in values):
                return values
    return ()


def _vector(values: tuple[float, ...]) -> Vector | None:
    return (values[0], values[1], values[2]) if len(values) == 3 else None


def _unit(values: tuple[float, ...]) -> Vector | None:
    length = math.hypot(*values) if len(values) == 3 else 0.0
    return (values[0] / length, values[1] / length, values[2] / length) if length > 0.5 else None
