"""Class labels, names of the classes, splits and parts of a raw dataset, compared with its cases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunet_3dct.data.dataset_tables import check_dataset_tables
from tests.utils import write_class_labels, write_class_table, write_raw_dataset


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound raw dataset: case_000 to case_005 to train, case_006 and case_007 held out."""
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return write_raw_dataset(tmp_path / "raw" / "Dataset001_Test", classes=(0, 1, 2, 0, 1, 2), validation=2)


@pytest.fixture
def preprocessed(raw: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "preprocessed" / raw.name
    folder.mkdir(parents=True)
    return folder


def write_splits(folder: Path, *folds: tuple[list[int], list[int]]) -> None:
    names = [{"train": [f"case_{n:03d}" for n in t], "val": [f"case_{n:03d}" for n in v]} for t, v in folds]
    (folder / "splits_final.json").write_text(json.dumps(names))


def test_sound_tables(raw: Path, preprocessed: Path) -> None:
    write_splits(preprocessed, ([0, 1, 2], [3, 4, 5]), ([3, 4, 5], [0, 1, 2]))
    result = check_dataset_tables(raw)
    assert result.problems == [] and result.notes == []
    labels, splits = result.read
    assert labels.endswith("classification.json: 8 cases, 8 of them in 3 classes (4, 2, 2 cases)")
    assert splits == f"splits: {preprocessed / 'splits_final.json'}: 2 folds"


@pytest.mark.parametrize("part", ["Val", "Ts"])
def test_held_out_case_that_is_trained_on_too(raw: Path, part: str) -> None:
    (raw / f"images{part}").mkdir(exist_ok=True)
    for channel in ("0000", "0001"):
        shutil.copyfile(raw / "imagesTr" / "case_003_0000.nii.gz", raw / f"images{part}" / f"case_003_{channel}.nii.gz")
    (problem,) = check_dataset_tables(raw).problems
    assert problem.startswith(f"imagesTr and images{part}: expected different cases, found these in both: case_003.")


def test_hidden_files_are_no_cases(raw: Path) -> None:
    for part in ("Tr", "Val"):
        shutil.copyfile(raw / "imagesTr" / "case_003_0000.nii.gz", raw / f"images{part}" / "._case_003_0000.nii.gz")
    assert check_dataset_tables(raw).problems == []


def test_labels_without_a_case_are_a_note(raw: Path) -> None:
    classes = json.loads((raw / "classification.json").read_text())
    write_class_labels(raw, {**classes, "case_042": 1, "Case_000": 0, "unsure": -1})
    result = check_dataset_tables(raw)
    assert result.problems == []
    assert "3 without a case in imagesTr, imagesVal, imagesTs: Case_000, case_042, unsure" in result.notes[0]
    assert "11 cases, 10 of them in 3 classes" in result.read[0]


@pytest.mark.parametrize(
    ("names", "number", "words"),
    [
        (["solid", "cystic"], None, "expected 3 names, since the classes are 0 to 2, found 2: solid, cystic"),
        (["a", "b", "c"], 4, "expected 4 names"),
        ("solid", None, "a list of 3 different names"),
        (["a", "b", "c"], None, None),
        (["a", "b", "c", "d"], 4, None),
    ],
)
def test_names_of_the_classes(raw: Path, names: object, number: int | None, words: str | None) -> None:
    description = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**description, "class_names": names}))
    problems = check_dataset_tables(raw, number).problems
    assert problems == [] if words is None else words in problems[0] and str(raw / "dataset.json") in problems[0]


@pytest.mark.parametrize(
    ("fold", "words"),
    [
        (([0, 1, 2, 42], [3, 4, 5]), "fold 0 names cases that the dataset does not have: case_042"),
        (([0, 1, 2, 3], [3, 4, 5]), "fold 0 has cases in training and in validation: case_003"),
        (([0, 1, 2, 2], [3, 4, 5]), "fold 0 lists cases more than once: case_002"),
        (([0, 1], [3, 4]), "2 cases are in no fold, so none is trained on: case_002, case_005"),
        (([0, 1, 2, 6], [3, 4, 5]), "fold 0 names cases that the dataset does not have: case_006"),  # held out
    ],
)
def test_faults_of_a_fold(raw: Path, preprocessed: Path, fold: tuple[list[int], list[int]], words: str) -> None:
    write_splits(preprocessed, fold)
    (problem,) = check_dataset_tables(raw).problems
    assert problem.startswith(f"splits_final.json: {words}")


def test_patients_on_both_sides_of_a_fold(raw: Path, preprocessed: Path) -> None:
    rows = [(f"case_{n:03d}", f"patient {n % 4}") for n in range(8)]
    write_class_table(raw / "classification.csv", rows, header=("Names", "Patient"))
    write_splits(preprocessed, ([0, 1, 2], [3, 4, 5]), ([0, 4, 2], [1]))
    (problem,) = check_dataset_tables(raw).problems
    assert "fold 0 has patients in training and in validation: patient 0, patient 1" in problem


def test_splits_that_are_none(raw: Path, preprocessed: Path) -> None:
    (preprocessed / "splits_final.json").write_text('{"train": []}')
    (problem,) = check_dataset_tables(raw).problems
    assert str(preprocessed / "splits_final.json") in problem and "nnUNet3DCT_splits --overwrite" in problem


def test_fewer_cases_than_folds_are_a_note_with_the_command_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    few = write_raw_dataset(tmp_path / "Dataset002_Few", classes=(0, 1, 0, 1))
    (note,) = check_dataset_tables(few).notes
    assert "4 training cases are fewer than nnU-Net's 5 folds" in note
    assert note.endswith("nnUNet3DCT_splits -d Dataset002_Few -k 4")
    write_class_table(
        few / "classification.csv", [(f"case_{n:03d}", n // 2) for n in range(4)], header=("Names", "Patient")
    )
    assert check_dataset_tables(few).notes[0].endswith("-k 2")


def test_broken_labels_and_descriptions_are_left_to_the_other_check(raw: Path) -> None:
    write_class_labels(raw, {"case_000": "benign"})
    assert check_dataset_tables(raw).problems == []
    (raw / "dataset.json").write_text("[]")
    assert check_dataset_tables(raw).read == []


def test_covariates_are_compared_with_cases_and_classes(raw: Path, preprocessed: Path) -> None:
    rows = [f"case_{n:03d},{50 + n},{'FM'[n // 2 % 2]}" for n in range(7)]
    (raw / "clinical.csv").write_text("\n".join(["Names,age,sex", *rows]) + "\n")
    result = check_dataset_tables(raw)
    assert result.problems == [] and result.notes == []  # case_007, without a row, is held out
    assert f"covariates: {raw / 'clinical.csv'}: 7 cases; age (a number), sex (a category)" in result.read

    text = [f"case_{n:03d},{50 + n},{'abc'[n % 3]}" for n in (0, 1, 2, 3, 4, 6, 7)]
    classes = json.loads((raw / "classification.json").read_text())
    write_class_labels(raw, {**classes, "case_006": 0, "case_007": 1})
    (raw / "clinical.csv").write_text("\n".join(["Names,age,kind", *text, "case_5,5,b"]) + "\n")
    result = check_dataset_tables(raw)
    unknown, revealing = result.problems
    assert "clinical.csv: case_5: expected a case of the dataset" in unknown and "did you mean case_005?" in unknown
    assert "column kind" in revealing and "a = class 0, b = class 1, c = class 2" in revealing
    assert result.notes == ["covariates: 1 training cases without a row, which count as missing: case_005"]

    (preprocessed / "clinical.csv").write_text("Names,age\ncase_000,67y\ncase_001,50\n")
    (problem,) = check_dataset_tables(raw).problems
    assert "case_000: column age: expected a number, found '67y'" in problem
