"""Measurements beside a mask: ``<case>_measurements.json`` of each case and one ``measurements.csv`` of a folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from typing_extensions import NotRequired, TypedDict

from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.formats.atomic import read_json, write_json, write_text

SUFFIX = "_measurements.json"
TABLE = "measurements.csv"
HU = "HU"


class Box(TypedDict):
    """Voxel indices from 0 along x, y, z of the file, first and last inside, and the lengths of the box in mm."""

    first: list[int]
    last: list[int]
    size_mm: list[float]


class Diameter(TypedDict):
    """The longest diameter in an axial slice.

    ``slice`` is the index from 0 along the axis of the file that runs closest to head and feet; ``ends`` are two points
    (x, y, z) in voxel indices, on the outline halfway between a voxel inside and one outside.
    """

    mm: float
    slice: int
    ends: list[list[float]]


class StructureMeasurements(TypedDict):
    """One structure.

    ``mean`` and ``sd`` (of the voxels, not of a sample) by channel; they, ``box`` and ``longest_diameter`` are null
    where there is no voxel. ``parts`` are connected by faces, edges or corners.
    """

    labels: list[int]
    voxels: int
    volume_ml: float
    mean: dict[str, float | None]
    sd: dict[str, float | None]
    box: Box | None
    longest_diameter: Diameter | None
    parts: int
    touches_border: bool


class MeasurementFile(TypedDict):
    """Content of ``<case>_measurements.json``.

    ``axes`` says towards which side of the patient x, y, z run, such as ``LPS``; ``units`` has ``HU`` for channels of
    CT. ``not_measured`` is there, with the reason, where an image has not three axes.
    """

    case: str
    size: list[int]
    spacing_mm: list[float]
    axes: str
    units: dict[str, str | None]
    structures: dict[str, StructureMeasurements]
    not_measured: NotRequired[str]


def measurement_path(folder: Path, case: str) -> Path:
    """``<folder>/<case>_measurements.json``."""
    return folder / f"{case}{SUFFIX}"


def write_measurements(content: MeasurementFile, path: Path) -> None:
    """Write the file of a case.

    Raises:
        OutputError: it cannot be written; what stood there before still does.
    """
    write_json(content, path)


def read_measurements(path: Path) -> MeasurementFile:
    """Read the file of a case.

    Raises:
        EvaluationError: it is missing, damaged, or holds something else.
    """
    content: MeasurementFile = read_json(path, "Measurements", EvaluationError, "Predict the case again.")
    keys = MeasurementFile.__annotations__.keys() - {"not_measured"}
    if not isinstance(content, dict) or not keys <= content.keys() or not isinstance(content["structures"], dict):
        raise EvaluationError(f"{path}: expected measurements with {', '.join(sorted(keys))}. Predict the case again.")
    return content


def write_measurement_table(folder: Path, cases: Iterable[str], file_ending: str) -> None:
    """``measurements.csv`` from the files of these cases, one row for each structure of a case.

    Cases without a file are left out; where no case has one, a table of an earlier run is deleted.

    Raises:
        EvaluationError: a file is damaged.
        OutputError: the table cannot be written.
    """
    files = [read_measurements(path) for case in sorted(cases) if (path := measurement_path(folder, case)).is_file()]
    if not files:
        (folder / TABLE).unlink(missing_ok=True)
        return
    units: dict[str, str | None] = {}
    for file in files:
        units.update(file["units"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_header(units))
    for file in files:
        for name, structure in file["structures"].items():
            writer.writerow([f"{file['case']}{file_ending}", name, *_row(structure, units)])
    write_text(text.getvalue(), folder / TABLE)


def _header(units: Mapping[str, str | None]) -> list[str]:
    named = [_column(channel, units) for channel in units]
    return [
        "Names", "Structure", "volume_ml", "voxels",
        *(f"{what}_{name}" for name in named for what in ("mean", "sd")),
        *(f"box_{end}_{axis}" for end in ("first", "last") for axis in "xyz"),
        *(f"box_mm_{axis}" for axis in "xyz"), "longest_diameter_mm", "longest_diameter_slice", "parts",
        "touches_border",
    ]  # fmt: skip


def _column(channel: str, units: Mapping[str, str | None]) -> str:
    """Name of a channel in the header: the unit where one channel alone has it."""
    return "hu" if units[channel] == HU and list(units.values()).count(HU) == 1 else channel


def _row(structure: StructureMeasurements, units: Mapping[str, str | None]) -> list[str]:
    box, diameter = structure["box"], structure["longest_diameter"]
    intensities = [structure[what].get(channel) for channel in units for what in ("mean", "sd")]
    return [
        _number(structure["volume_ml"]),
        str(structure["voxels"]),
        *map(_number, intensities),
        *(map(str, (*box["first"], *box["last"])) if box else [""] * 6),
        *(map(_number, box["size_mm"]) if box else [""] * 3),
        _number(diameter["mm"] if diameter else None),
        str(diameter["slice"]) if diameter else "",
        str(structure["parts"]),
        "yes" if structure["touches_border"] else "no",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
