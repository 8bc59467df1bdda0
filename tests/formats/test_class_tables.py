"""The two tables: they can be read, and hold the cases of this run and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.formats import class_tables
from nnunet_3dct.formats.class_files import class_file_path
from nnunet_3dct.formats.class_tables import write_class_tables
from nnunet_3dct.formats.prediction_folders import read_predictions
from tests.formats.class_predictions import NAMES, PROBABILITIES, write


def only(table: Path, folder: Path) -> Path:
    """A new folder that holds a copy of one table."""
    folder.mkdir()
    (folder / table.name).write_bytes(table.read_bytes())
    return folder


@pytest.mark.parametrize("names", [None, NAMES, ["a", "b"], ["a", "a", "b"], ["a", "", "b"], []])
def test_tables_can_be_read_whatever_names_the_class_files_hold(names: list[str] | None, tmp_path: Path) -> None:
    for n, case in enumerate(("a", "b", "c.d")):
        write(tmp_path, case, np.roll(PROBABILITIES, n).tolist(), class_names=names)
    write_class_tables(tmp_path, ["a", "b", "c.d"], ".nii.gz")
    expected = {"a": 1, "b": 2, "c.d": 0}
    for kept in ("subtype_probabilities.csv", "subtype_results.csv"):
        found, source = read_predictions(only(tmp_path / kept, tmp_path / kept.partition(".")[0]))
        assert {case: prediction.label for case, prediction in found.items()} == expected and source == kept
    header = (tmp_path / "subtype_probabilities.csv").read_text()
    assert ("class_0,class_1,class_2" in header) == (names is not NAMES)


def test_tables_hold_the_given_cases_and_no_others(tmp_path: Path) -> None:
    for case in ("a", "b", "former"):
        write(tmp_path, case)
    write_class_tables(tmp_path, ["b", "a", "failed"], ".nii.gz")
    assert (tmp_path / "subtype_results.csv").read_text() == "Names,Subtype\na.nii.gz,1\nb.nii.gz,1\n"
    assert "former" not in (tmp_path / "subtype_probabilities.csv").read_text()


def test_tables_of_a_former_run_go_when_every_case_failed(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write_class_tables(tmp_path, ["a"], ".nii.gz")
    class_file_path(tmp_path, "a").unlink()
    write_class_tables(tmp_path, ["a"], ".nii.gz")
    assert list(tmp_path.iterdir()) == []
    write_class_tables(tmp_path, [], ".nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_cases_of_models_with_different_classes_make_no_table(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path, "b", [0.5, 0.5])
    with pytest.raises(EvaluationError, match=r"different numbers of classes: 3 \(a\), 2 \(b\)"):
        write_class_tables(tmp_path, ["a", "b"], ".nii.gz")
    assert not list(tmp_path.glob("*.csv"))


def test_damaged_class_file_is_not_left_out_of_the_table(tmp_path: Path) -> None:
    write(tmp_path, "a")
    class_file_path(tmp_path, "b").write_text("{")
    with pytest.raises(EvaluationError, match=r"b_classification\.json"):
        write_class_tables(tmp_path, ["a", "b"], ".nii.gz")


def test_table_holds_a_case_that_another_part_finishes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a")
    write_csv = class_tables._write_csv

    def late(*args: Any) -> None:
        write(tmp_path, "b", [0.5, 0.25, 0.25])
        write_csv(*args)

    monkeypatch.setattr(class_tables, "_write_csv", late)
    write_class_tables(tmp_path, ["a", "b", "c"], ".nii.gz")
    assert (tmp_path / "subtype_results.csv").read_text() == "Names,Subtype\na.nii.gz,1\nb.nii.gz,0\n"


def test_case_that_vanishes_while_the_table_is_made_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for case in "ab":
        write(tmp_path, case)
    write_csv = class_tables._write_csv

    def removing(*args: Any) -> None:
        (tmp_path / "b_classification.json").unlink(missing_ok=True)
        write_csv(*args)

    monkeypatch.setattr(class_tables, "_write_csv", removing)
    write_class_tables(tmp_path, ["a", "b"], ".nii.gz")
    assert (tmp_path / "subtype_results.csv").read_text() == "Names,Subtype\na.nii.gz,1\n"
