"""``nnUNet3DCT_check``: what it prints and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_3dct.cli import check as command
from nnunet_3dct.data.installation import Finding
from tests.utils import empty, write_class_labels, write_raw_dataset

pytestmark = pytest.mark.usefixtures("sound_installation")


@pytest.fixture
def sound_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [Finding("torch", True, "1.0"), Finding("nnUNet_raw", True, "not set", warning=True)]
    monkeypatch.setattr("nnunet_3dct.data.installation.check_installation", lambda: findings)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)


def check(*arguments: str) -> int:
    """Exit code of the command."""
    try:
        command.main([*arguments, "-np", "1"])
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        return stopped.code
    return 0


def test_passes_with_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_raw_dataset(tmp_path / "Dataset001_Test", classes=(0, 1, 0, 1, 0))
    assert check("-d", str(folder)) == 0
    output = capsys.readouterr().out
    assert "  ok    torch: 1.0\n  note  nnUNet_raw: not set\n" in output
    assert "  ok    images, labels and classes" in output
    assert f"class labels: {folder / 'classification.json'}: 5 cases, 5 of them in 2 classes (3, 2 cases)" in output
    assert output.endswith("All checks passed\n") and "splits" not in output


@pytest.mark.parametrize("dataset", ["1", "Dataset001_Test"])
def test_finds_a_dataset_by_number_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str) -> None:
    write_raw_dataset(tmp_path / "Dataset001_Test")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert check("-d", dataset) == 0


def test_problems_are_listed_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_raw_dataset(tmp_path)
    empty(folder / "labelsTr" / "case_001.nii.gz")
    assert check("-d", str(folder)) == 1
    output = capsys.readouterr().out
    assert "  FAIL  " in output and "case_001.nii.gz: expected an image, found a file of 0 bytes" in output
    assert output.endswith("FAILED: 1 problem(s) found\n")


@pytest.mark.parametrize(
    ("dataset", "message"), [("7", "ID 7"), ("Dataset007_No", "no such folder"), ("x", "Your input: x")]
)
def test_unknown_dataset_is_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dataset: str, message: str
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert check("-d", dataset) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and "unexpected" not in error


def test_number_of_classes_comes_from_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNUNETV2_MT_NUM_CLS", "3")
    assert check("-d", str(write_raw_dataset(tmp_path))) == 1
    assert "NNUNETV2_MT_NUM_CLS=3 but the labels hold only" in capsys.readouterr().out


def test_bad_variable_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NNUNETV2_MT_NUM_CLS", "three")
    assert check() == 1
    assert "NNUNETV2_MT_NUM_CLS: expected an integer" in capsys.readouterr().out


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A sound raw dataset and the folder of its preprocessed data."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    (tmp_path / "preprocessed" / "Dataset001_Test").mkdir(parents=True)
    raw = write_raw_dataset(tmp_path / "raw" / "Dataset001_Test", classes=(0, 1, 0, 1), validation=1)
    return raw, tmp_path / "preprocessed" / "Dataset001_Test"


def test_labels_that_training_would_not_read_do_not_pass(
    dataset: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    raw, preprocessed = dataset
    classes = json.loads((raw / "classification.json").read_text())
    older = write_class_labels(preprocessed, {case: 1 - k for case, k in classes.items()})
    assert check("-d", "1") == 1
    output = capsys.readouterr().out
    assert str(older) in output and str(raw / "classification.json") in output
    assert "case_000: class 1 in the first, 0 in the second" in output
    write_class_labels(preprocessed, classes)
    assert check("-d", "1") == 0
    assert f"read  class labels: {older}: 5 cases" in capsys.readouterr().out


def test_labels_beside_the_preprocessed_data_are_checked(
    dataset: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    raw, preprocessed = dataset
    (raw / "classification.json").unlink()
    write_class_labels(preprocessed, {"case_000": 0, "case_001": 1, "case_002": 0})
    assert check("-d", "1") == 1
    assert "case_003: has no label" in capsys.readouterr().out


def test_faults_of_splits_and_names_are_counted(dataset: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    raw, preprocessed = dataset
    (preprocessed / "splits_final.json").write_text('[{"train": ["case_000", "case_001"], "val": ["case_042"]}]')
    description = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**description, "class_names": ["a", "b", "c"]}))
    assert check("-d", "1") == 1
    output = capsys.readouterr().out
    assert "FAIL  splits_final.json: fold 0 names cases that the dataset does not have: case_042" in output
    assert "2 cases are in no fold" in output and "case_002, case_003" in output
    assert "class_names: expected 2 names" in output and "FAILED: 3 problem(s)" in output


def test_json_is_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_raw_dataset(tmp_path / "Dataset001_Test", classes=(0, 1, 0, 1, 0))
    empty(folder / "labelsTr" / "case_001.nii.gz")
    assert check("-d", str(folder), "--json") == 1
    content = json.loads(capsys.readouterr().out)
    assert content["ok"] is False and content["num_training"] == 5
    (problem,) = content["problems"]
    assert problem["subject"] == "files" and problem["cases"] == ["case_001"] and "0 bytes" in problem["text"]
    case = content["cases"]["case_000"]
    assert (case["part"], case["size"], case["axes"]) == ("training", [10, 8, 6], "LPS")
    assert case["structures_ml"]["lesion"] == pytest.approx(0.001)


def test_page_and_json_file_beside_the_usual_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_raw_dataset(tmp_path / "Dataset001_Test", classes=(0, 1, 0, 1, 0))
    empty(folder / "labelsTr" / "case_001.nii.gz")
    page, table = tmp_path / "check.html", tmp_path / "check.json"
    assert check("-d", str(folder), "--html", str(page), "--json", str(table)) == 1
    output = capsys.readouterr().out
    assert "FAILED: 1 problem(s) found" in output and str(page) in output
    assert json.loads(table.read_text())["problems"] and page.read_text().startswith("<!DOCTYPE html>")


def test_page_without_a_dataset_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--html") == 2
    assert "expected a dataset (-d)" in capsys.readouterr().err


def test_warnings_do_not_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_raw_dataset(tmp_path / "Dataset001_Test")
    assert check("-d", str(folder)) == 0
    assert "  warn  fewer training cases than nnU-Net's 5 folds" in capsys.readouterr().out


def test_points_to_the_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert check() == 0
    assert "nnUNet3DCT_doctor" in capsys.readouterr().out
