"""What can be measured of a mask: volume, intensities, box, longest diameter, parts, whether it is cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cc3d
import numpy as np

from nnunet_3dct.evaluation.case_segmentation import structure_labels
from nnunet_3dct.evaluation.diameter import longest_diameter
from nnunet_3dct.formats.geometry import Geometry, axes_code, read_geometry
from nnunet_3dct.formats.image_files import read_voxels
from nnunet_3dct.formats.image_readers import Reader
from nnunet_3dct.formats.measurement_files import HU, Box, Diameter, MeasurementFile, StructureMeasurements


def measure_structures(
    mask: Path,
    images: Sequence[Path | np.ndarray],
    dataset_json: Mapping[str, Any],
    case: str,
    reader: Reader | None = None,
) -> MeasurementFile:
    """Measure the structures of a mask on the image that it belongs to.

    Args:
        mask: file of the label volume.
        images: its image on the same grid, one file or array ``(Z, Y, X)`` a channel; others are left out.
        dataset_json: with ``labels`` and ``channel_names``.
        case: identifier.
        reader: of the files, by name or class; None for one that uses ITK.

    Raises:
        ImageError: a file cannot be read.
    """
    grid = read_geometry(mask, reader=reader)
    names = [str(name) for name in _channel_names(dataset_json).values()]
    content: MeasurementFile = {
        "case": case,
        "size": list(grid.size),
        "spacing_mm": list(grid.spacing),
        "axes": "",
        "units": {name: HU if name.casefold() == "ct" else None for name in names},
        "structures": {},
    }
    if len(grid.size) != 3:
        content["not_measured"] = f"the image has {len(grid.size)} axes, expected 3"
        return content
    content["axes"] = axes_code(grid.direction)
    labels = read_voxels(mask, reader)
    channels = {
        name: image if isinstance(image, np.ndarray) else read_voxels(image, reader)
        for name, image in zip(names, images, strict=False)
    }
    ignored = dataset_json["labels"].get("ignore")
    for name, members in structure_labels(dataset_json["labels"], ignored).items():
        content["structures"][name] = measure_structure(np.isin(labels, members), channels, grid, members)
    return content


def measure_structure(
    mask: np.ndarray, channels: Mapping[str, np.ndarray], grid: Geometry, labels: Sequence[int] = ()
) -> StructureMeasurements:
    """Measure one structure.

    Args:
        mask: boolean ``(Z, Y, X)``.
        channels: name -> intensities ``(Z, Y, X)``.
        grid: of the mask; its axes are x, y, z.
        labels: that the structure is made of; noted.
    """
    result: StructureMeasurements = {
        "labels": [int(label) for label in labels],
        "voxels": int(np.count_nonzero(mask)),
        "volume_ml": float(np.count_nonzero(mask) * np.prod(grid.spacing) / 1000),
        "mean": dict.fromkeys(channels),
        "sd": dict.fromkeys(channels),
        "box": None,
        "longest_diameter": None,
        "parts": 0,
        "touches_border": False,
    }
    if not result["voxels"]:
        return result
    first, last = _corners(mask)
    region = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
    inside = mask[region]
    for name, values in channels.items():
        if values.shape == mask.shape:
            found = values[region][inside].astype(np.float64)
            result["mean"][name], result["sd"][name] = float(found.mean()), float(found.std())
    result["box"] = _box(first, last, grid)
    result["longest_diameter"] = _diameter(inside, first, grid)
    result["parts"] = int(cc3d.connected_components(inside, connectivity=26, return_N=True)[1])
    result["touches_border"] = any(
        size > 1 and (low == 0 or high == size - 1) for low, high, size in zip(first, last, mask.shape, strict=True)
    )
    return result


def axial_axis(direction: Sequence[float]) -> int:
    """Which of the axes x, y, z (0, 1, 2) runs closest to the patient's head and feet.

    Args:
        direction: nine cosines row by row, as in :class:`~nnunet_3dct.formats.geometry.Geometry`.

    Examples:
        >>> axial_axis((1, 0, 0, 0, 1, 0, 0, 0, 1)), axial_axis((1, 0, 0, 0, 0, 1, 0, -1, 0))
        (2, 1)
    """
    return next(axis for axis, side in enumerate(axes_code(direction)) if side in "SI")


def _channel_names(dataset_json: Mapping[str, Any]) -> Mapping[str, Any]:
    names: Mapping[str, Any] = dataset_json.get("channel_names") or dataset_json.get("modality", {})
    return names


def _corners(mask: np.ndarray) -> tuple[list[int], list[int]]:
    """First and last index of the voxels along each axis of the array."""
    first, last = [], []
    for axis in range(3):
        at = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first.append(int(at[0]))
        last.append(int(at[-1]))
    return first, last


def _box(first: Sequence[int], last: Sequence[int], grid: Geometry) -> Box:
    low, high = list(first[::-1]), list(last[::-1])
    size = [(b - a + 1) * spacing for a, b, spacing in zip(low, high, grid.spacing, strict=True)]
    return {"first": low, "last": high, "size_mm": size}


def _diameter(inside: np.ndarray, first: Sequence[int], grid: Geometry) -> Diameter | None:
    axis = 2 - axial_axis(grid.direction)  # of the array
    found = longest_diameter(inside, axis, grid.spacing[::-1])
    if found is None:
        return None
    index = found.slice + first[axis]
    ends = []
    for point in found.ends:
        position = [value + first[a] for a, value in zip([a for a in range(3) if a != axis], point, strict=True)]
        position.insert(axis, float(index))
        ends.append(position[::-1])
    return {"mm": found.length, "slice": int(index), "ends": ends}
