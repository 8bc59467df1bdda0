"""Segments of a DICOM-SEG as masks on planes: binary, fractional and label maps."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from pydicom.dataset import Dataset

from nnunet_3dct.dicom.pixels import stored_values
from nnunet_3dct.dicom.planes import MaskPlanes
from nnunet_3dct.dicom.slices import plane_axes
from nnunet_3dct.dicom.stack import Stack
from nnunet_3dct.dicom.tags import items, number, numbers, text
from nnunet_3dct.errors import ImageError

_HALF = 0.5  # of a fractional segment's largest value


def segment_planes(dataset: Dataset, stack: Stack, case: str) -> tuple[dict[str, MaskPlanes], list[str]]:
    """Masks of the segments by name, and what was changed.

    Args:
        dataset: of the DICOM-SEG.
        stack: slices on which it was drawn, for the spacing where the file does not give it.
        case: for messages.

    Raises:
        ImageError: frames do not say where they lie, or lie in several orientations.
    """
    names = {int(item.SegmentNumber): text(item, "SegmentLabel") for item in items(dataset, "SegmentSequence")}
    frames = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    positions = np.array(
        [_found([frame, *shared], "PlanePositionSequence", "ImagePositionPatient", 3) for frame in frames]
    )
    if not len(frames) or positions.shape != (len(frames), 3):
        raise ImageError(
            f"{case}: expected frames that say where they lie, found some without a position. Export the segmentation "
            "again."
        )
    axes = _axes(frames, shared, case)
    pixel = _found([*shared, *frames[:1]], "PixelMeasuresSequence", "PixelSpacing", 2)
    values, repairs = _masks(dataset, len(frames))
    pixel_size, reach = (pixel[1], pixel[0]), _reach(frames, shared, positions, axes, stack)
    found: dict[str, MaskPlanes] = {}
    for name, chosen in _by_name(dataset, frames, shared, values, names).items():
        masks, places = _merged(chosen, positions, axes) if chosen else (values[:0] > 0, positions[:0])
        found[name] = MaskPlanes(axes, pixel_size, places, masks, reach)
    return found, repairs


def _by_name(
    dataset: Dataset, frames: list[Dataset], shared: list[Dataset], values: np.ndarray, names: dict[int, str]
) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Name of a segment -> frames with its mask, none for one that is empty."""
    found: dict[str, list[tuple[int, np.ndarray]]] = defaultdict(list)
    label_map = text(dataset, "SegmentationType") == "LABELMAP"
    segments = [0 if label_map else _segment([frame, *shared]) for frame in frames]
    for segment, label in names.items():
        if label_map and segment == 0:
            continue  # the background
        chosen = found[label or f"segment_{segment}"]
        for index, of_frame in enumerate(segments):
            mask = values[index] == segment if label_map else values[index] > 0
            if (label_map or of_frame == segment) and mask.any():
                chosen.append((index, mask))
    return found


def _segment(groups: list[Dataset]) -> int:
    return int(_found(groups, "SegmentIdentificationSequence", "ReferencedSegmentNumber", 1)[0])


def _merged(
    chosen: list[tuple[int, np.ndarray]], positions: np.ndarray, axes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Masks, one a plane, and the origins of the planes; several frames of one plane are united."""
    by_height: dict[float, tuple[int, np.ndarray]] = {}
    for index, mask in chosen:
        height = round(float(positions[index] @ axes[:, 2]), 2)
        first, united = by_height.get(height, (index, mask))
        by_height[height] = (first, united | mask)
    return np.stack([mask for _, mask in by_height.values()]), positions[[first for first, _ in by_height.values()]]


def _masks(dataset: Dataset, frames: int) -> tuple[np.ndarray, list[str]]:
    """Values (frames, Y, X): not 0 inside of a segment, of a label map its number."""
    values = stored_values(dataset).reshape(frames, dataset.Rows, dataset.Columns)
    if text(dataset, "SegmentationType") != "FRACTIONAL":
        return values, []
    largest = number(dataset, "MaximumFractionalValue") or 255
    return (values >= _HALF * largest).astype(np.uint8), ["a fractional segmentation, cut at one half"]


def _axes(frames: list[Dataset], shared: list[Dataset], case: str) -> np.ndarray:
    found = [_found([frame, *shared], "PlaneOrientationSequence", "ImageOrientationPatient", 6) for frame in frames]
    if not all(found) or np.abs(np.array(found) - found[0]).max() > 1e-3:
        raise ImageError(
            f"{case}: expected frames of one orientation, found none or several. Export each of them as a segmentation "
            "of its own."
        )
    return plane_axes(found[0][:3], found[0][3:])


def _reach(
    frames: list[Dataset], shared: list[Dataset], positions: np.ndarray, axes: np.ndarray, stack: Stack
) -> float:
    """Half the spacing between slices."""
    between = _found([*shared, *frames[:1]], "PixelMeasuresSequence", "SpacingBetweenSlices", 1)
    if between and between[0]:
        return abs(between[0]) / 2
    gaps = np.diff(np.unique(np.round(positions @ axes[:, 2], 2)))
    if len(gaps):
        return float(gaps.min()) / 2
    return stack.step / 2


def _found(groups: list[Dataset], sequence: str, keyword: str, length: int) -> tuple[float, ...]:
    for group in groups:
        for item in items(group, sequence)[:1]:
            values = numbers(item, keyword)
            if len(values) == length:
                return values
    return ()
