from __future__ import annotations

import csv
from pathlib import Path

import pytest

from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.formats.measurement_files import (
    TABLE,
    MeasurementFile,
    StructureMeasurements,
    measurement_path,
    read_measurements,
    write_measurement_table,
    write_measurements,
)

LESION: StructureMeasurements = {
    "labels": [2], "voxels": 1000, "volume_ml": 1.25, "mean": {"CT": 35.5}, "sd": {"CT": 12.25},
    "box": {"first": [1, 2, 3], "last": [10, 11, 12], "size_mm": [10.0, 10.0, 25.0]},
    "longest_diameter": {"mm": 12.5, "slice": 7, "ends": [[1.0, 2.0, 7.0], [9.0, 8.0, 7.0]]},
    "parts": 2, "touches_border": True,
}  # fmt: skip
NONE: StructureMeasurements = {
    "labels": [1], "voxels": 0, "volume_ml": 0.0, "mean": {"CT": None}, "sd": {"CT": None}, "box": None,
    "longest_diameter": None, "parts": 0, "touches_border": False,
}  # fmt: skip


def content(case: str, **units: str | None) -> MeasurementFile:
    return {
        "case": case, "size": [20, 20, 20], "spacing_mm": [1.0, 1.0, 2.5], "axes": "LPS",
        "units": units or {"CT": "HU"}, "structures": {"organ": NONE, "lesion": LESION},
    }  # fmt: skip


def test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_measurements(content("a"), measurement_path(tmp_path, "a"))
    assert read_measurements(tmp_path / "a_measurements.json") == content("a")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"structures": []}'])
def test_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a_measurements.json"
    path.write_text(text)
    with pytest.raises(EvaluationError, match="a_measurements"):
        read_measurements(path)


def test_table_has_one_row_for_each_structure(tmp_path: Path) -> None:
    for case in ("b", "a"):
        write_measurements(content(case), measurement_path(tmp_path, case))
    write_measurement_table(tmp_path, ["b", "a", "failed"], ".nii.gz")
    rows = list(csv.DictReader((tmp_path / TABLE).open()))
    assert [(row["Names"], row["Structure"]) for row in rows] == [
        ("a.nii.gz", "organ"), ("a.nii.gz", "lesion"), ("b.nii.gz", "organ"), ("b.nii.gz", "lesion"),
    ]  # fmt: skip
    assert rows[1] == {
        "Names": "a.nii.gz", "Structure": "lesion", "volume_ml": "1.25", "voxels": "1000", "mean_hu": "35.5",
        "sd_hu": "12.25", "box_first_x": "1", "box_first_y": "2", "box_first_z": "3", "box_last_x": "10",
        "box_last_y": "11", "box_last_z": "12", "box_mm_x": "10", "box_mm_y": "10", "box_mm_z": "25",
        "longest_diameter_mm": "12.5", "longest_diameter_slice": "7", "parts": "2", "touches_border": "yes",
    }  # fmt: skip
    assert rows[0]["mean_hu"] == rows[0]["longest_diameter_mm"] == "" and rows[0]["touches_border"] == "no"


def test_table_without_cases_is_none(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text("of an earlier run")
    write_measurement_table(tmp_path, ["a"], ".nii.gz")
    assert not (tmp_path / TABLE).exists()


def test_channels_that_are_no_ct_keep_their_names(tmp_path: Path) -> None:
    write_measurements(content("a", T1=None, CT="HU"), measurement_path(tmp_path, "a"))
    write_measurement_table(tmp_path, ["a"], ".nii.gz")
    header = (tmp_path / TABLE).read_text().splitlines()[0]
    assert "mean_T1,sd_T1,mean_hu,sd_hu" in header
