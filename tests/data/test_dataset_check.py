from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_3dct.data.checks.case import CaseCheck
from nnunet_3dct.data.checks.dataset import check_dataset
from tests.utils import ct_array, empty, label_array, truncate, with_nan, write_raw_dataset, write_volume


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def problems_of(*args: Any, **options: Any) -> list[str]:
    return check_dataset(*args, **options).problems


def only(problems: list[str]) -> str:
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize("processes", [1, 2])
def test_sound_dataset_has_no_problems(tmp_path: Path, processes: int) -> None:
    folder = write_raw_dataset(tmp_path / "Dataset001_Test", channels=2, validation=2)
    assert problems_of(folder, processes) == []


def test_every_problem_is_in_one_report(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path, classes=(0, 1, 0, 1, 0), validation=1)
    truncate(folder / "imagesTr" / "case_000_0000.nii.gz", 0.6)
    write_volume(folder / "labelsTr" / "case_001.nii.gz", label_array((6, 8, 9)))
    (folder / "labelsTr" / "case_002.nii.gz").unlink()
    write_volume(folder / "labelsTr" / "case_003.nii.gz", label_array() * 3)
    empty(folder / "labelsVal" / "case_005.nii.gz")
    edit_json(folder / "classification.json", case_004="benign")
    problems = problems_of(folder)
    expected = [
        ("case_000_0000.nii.gz", "truncated"),
        ("case_001: label", "found (9, 8, 6)"),
        ("case_002.nii.gz", "found nothing"),
        ("case_003: label", "found also 3"),
        ("case_005.nii.gz", "0 bytes"),
        ("classification.json", "'benign'"),
    ]
    assert len(problems) == len(expected), problems
    for problem, words in zip(problems, expected, strict=True):
        assert all(word in problem for word in words), problem


def test_processes_report_the_same_in_the_same_order(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path)
    for case in ("case_001", "case_003"):
        write_volume(folder / "labelsTr" / f"{case}.nii.gz", label_array() + 1)
    assert problems_of(folder, 2) == problems_of(folder, 1) != []


def test_nan_in_an_image_is_reported(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path)
    write_volume(folder / "imagesTr" / "case_001_0000.nii.gz", with_nan(ct_array()))
    assert "case_001 (case_001_0000.nii.gz): expected finite" in only(problems_of(folder))


def test_missing_channel_is_reported_with_its_case(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path, channels=2)
    (folder / "imagesTr" / "case_001_0000.nii.gz").unlink()
    problems = problems_of(folder)
    assert "imagesTr: case_001: expected channel numbers from 0000 without a gap, found 0001" in problems[0]
    assert "numTraining is 4, found 3" in problems[1] and len(problems) == 2


def test_misnamed_image_is_reported_once_and_by_its_name(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path)
    (folder / "imagesTr" / "case_001_0000.nii.gz").rename(folder / "imagesTr" / "case_001.nii.gz")
    problems = problems_of(folder)
    assert "imagesTr: case_001.nii.gz: expected a name like <case>_0000.nii.gz" in problems[0]
    assert "labels without an image in imagesTr: case_001.nii.gz" in problems[1]
    assert "numTraining is 4, found 3" in problems[2]
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "organ": 1, "lesion": 3}}, "expected consecutive labels"),
        ({"labels": {"organ": 1}}, "labels: cannot be used by nnU-Net"),
        ({"numTraining": 9}, "numTraining is 9, found 4"),
    ],
)
def test_bad_entries_of_dataset_json_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    folder = write_raw_dataset(tmp_path)
    edit_json(folder / "dataset.json", **changes)
    assert any(message in problem for problem in problems_of(folder))


def test_ignore_label_is_allowed(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path)
    labels = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    edit_json(folder / "dataset.json", labels=labels)
    write_volume(folder / "labelsTr" / "case_000.nii.gz", np.full((6, 8, 10), 3, np.uint8))
    assert problems_of(folder) == []


def test_unusable_dataset_json_ends_the_check(tmp_path: Path) -> None:
    assert "found no such folder" in only(problems_of(tmp_path / "nowhere"))
    assert "found no such file" in only(problems_of(tmp_path))
    (tmp_path / "dataset.json").write_text("{'labels'")
    assert "expected JSON" in only(problems_of(tmp_path))
    (tmp_path / "dataset.json").write_text('{"labels": {}, "numTraining": 0}')
    keys, labels = problems_of(tmp_path)
    assert "found no channel_names, file_ending" in keys and "expects background" in labels


def test_missing_folders_are_named(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path / "a")
    (folder / "labelsTr").rename(folder / "labels")
    assert "expected the folders imagesTr and labelsTr, found no labelsTr" in problems_of(folder)[0]


def test_files_listed_in_dataset_json_are_checked(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path)
    listed = {
        f"case_{n:03d}": {
            "images": [f"imagesTr/case_{n:03d}_0000.nii.gz"],
            "label": f"labelsTr/case_{n:03d}.nii.gz",
        }
        for n in range(4)
    }
    edit_json(folder / "dataset.json", dataset=listed)
    assert problems_of(folder) == []
    (folder / "labelsTr" / "case_002.nii.gz").unlink()
    assert "case_002.nii.gz: expected an image file, found nothing" in only(problems_of(folder))


def test_missing_class_labels_are_reported(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path / "raw")
    (folder / "classification.json").rename(tmp_path / "classification.json")
    assert "No class labels" in only(problems_of(folder))
    assert problems_of(folder, label_folders=[tmp_path]) == []


def test_case_without_a_class_is_named(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path, validation=2)
    classes = json.loads((folder / "classification.json").read_text())
    del classes["case_001"], classes["case_005"]
    (folder / "classification.json").write_text(json.dumps(classes))
    problems = problems_of(folder)
    assert [problem.split(": ")[1] for problem in problems] == ["case_001", "case_005"]


def test_classes_of_validation_cases_may_be_kept_elsewhere(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path, validation=2)
    classes = json.loads((folder / "classification.json").read_text())
    del classes["case_004"], classes["case_005"]
    (folder / "classification.json").write_text(json.dumps(classes))
    assert problems_of(folder) == []


def test_unknown_class_and_integer_strings_are_fine(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path)
    edit_json(folder / "classification.json", case_002=-1, case_003="1")
    assert problems_of(folder) == []


def test_class_beyond_the_number_asked_for_is_named(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path, classes=(0, 1, 2, 1))
    problem = only(problems_of(folder, num_classes=2))
    assert "case_002: label 2 is out of range" in problem


def test_progress_sees_every_case(tmp_path: Path) -> None:
    seen: list[int] = []

    def progress(results: Iterable[CaseCheck], total: int) -> Iterable[CaseCheck]:
        seen.append(total)
        for result in results:
            seen.append(len(result.problems))
            yield result

    problems_of(write_raw_dataset(tmp_path, validation=1), progress=progress)
    assert seen == [5, 0, 0, 0, 0, 0]
