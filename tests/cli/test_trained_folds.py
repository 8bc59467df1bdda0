"""What the commands on a model's folds refuse, whichever of them reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_3dct.cli import calibrate, crossval
from tests.evaluation import trained_folds as made
from tests.utils import write_class_labels


@pytest.fixture
def folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return made.write_folds(tmp_path, monkeypatch)


def test_tables_that_differ_stop_calibration(folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preprocessed, raw = (tmp_path / name / made.DATASET for name in ("preprocessed", "raw"))
    labels = json.loads((preprocessed / "classification.json").read_text())
    write_class_labels(raw, {**labels, "case_103": 2})
    with pytest.raises(SystemExit) as stopped:
        calibrate.main(["-d", "42"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "case_103: class 0 in the first, 2 in the second" in error
    write_class_labels(raw, labels)
    calibrate.main(["-d", "42"])
    assert f"classes from {preprocessed / 'classification.json'}" in capsys.readouterr().out


def edit_description(folds: Path, tmp_path: Path) -> None:
    description = json.loads((folds / "dataset.json").read_text())
    (folds / "dataset.json").write_text(json.dumps({**description, "class_names": ["low", "high"]}))


def remove_splits(folds: Path, tmp_path: Path) -> None:
    (tmp_path / "preprocessed" / made.DATASET / "splits_final.json").unlink()


def break_splits(folds: Path, tmp_path: Path) -> None:
    (tmp_path / "preprocessed" / made.DATASET / "splits_final.json").write_text("[1]")


@pytest.mark.parametrize("command", [calibrate.main, crossval.main], ids=["calibrate", "crossval"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (edit_description, "class_names: expected 3 names, since the classes are 0 to 2, found 2: low, high"),
        (remove_splits, "expected the splits of the dataset, found none"),
        (break_splits, 'expected a list with {"train": [cases], "val": [cases]} for each fold'),
    ],
)
def test_missing_and_contradicting_files_are_named(
    command: Callable[..., None],
    damage: Callable[[Path, Path], None],
    words: str,
    folds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(folds, tmp_path)
    with pytest.raises(SystemExit):
        command(["-d", "42"])
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_names_given_with_the_command_come_first(folds: Path, tmp_path: Path) -> None:
    edit_description(folds, tmp_path)
    crossval.main(["-d", "42", "--class-names", "a", "b", "c", "--bootstrap", "0", "-np", "1"])
    found = json.loads((folds / "crossval_metrics.json").read_text())
    assert found["classification"]["pooled"]["class_names"] == ["a", "b", "c"]
