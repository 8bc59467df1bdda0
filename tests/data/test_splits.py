"""Folds stratified by class and kept apart by patient."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct.cli import splits as command
from nnunet_3dct.data.splits import (
    check_splits,
    count_patients,
    folds_without_class,
    read_splits,
    require_fold,
    stratified_splits,
    write_splits,
)
from nnunet_3dct.errors import ClassLabelsError, OutputError, SettingsError
from nnunet_3dct.formats.class_labels import load_class_labels
from tests import toy
from tests.utils import write_class_table

CASES = [f"case_{n:03d}" for n in range(252)]
CLASSES = dict(zip(CASES, np.random.default_rng(0).permutation([0] * 62 + [1] * 106 + [2] * 84).tolist(), strict=True))


def test_every_case_is_validated_once_and_classes_are_spread_evenly() -> None:
    splits = stratified_splits(CASES, CLASSES)
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split["val"]) == CASES
    for split in splits:
        assert sorted(split["train"] + split["val"]) == CASES
        counts = Counter(CLASSES[case] for case in split["val"])
        assert counts[0] in (12, 13) and counts[1] in (21, 22) and counts[2] in (16, 17)
    assert folds_without_class(splits, CLASSES, 3) == []


def test_same_seed_same_folds_whatever_the_order_of_the_cases() -> None:
    assert stratified_splits(CASES, CLASSES) == stratified_splits(CASES[::-1], CLASSES)
    assert stratified_splits(CASES, CLASSES) != stratified_splits(CASES, CLASSES, seed=1)


def test_cases_of_a_patient_stay_together() -> None:
    groups = {case: f"patient_{n // 3}" for n, case in enumerate(CASES[:240])}  # the last twelve stand alone
    splits = stratified_splits(CASES, CLASSES, groups)
    for split in splits:
        assert not {groups.get(c) for c in split["train"]} & {groups.get(c) for c in split["val"]} - {None}
    assert sorted(case for split in splits for case in split["val"]) == CASES
    assert folds_without_class(splits, CLASSES, 3) == []


def test_unknown_cases_are_spread_too() -> None:
    classes = {**CLASSES, **dict.fromkeys(CASES[:50], -1)}
    assert [sum(classes[c] == -1 for c in split["val"]) for split in stratified_splits(CASES, classes)] == [10] * 5


def test_fold_without_a_class_is_named() -> None:
    classes = {case: int(n < 3) for n, case in enumerate(CASES)}
    splits = stratified_splits(CASES, classes)
    problems = folds_without_class(splits, classes, 2)
    assert len(problems) == 2 and all("no validation case of class 1" in problem for problem in problems)


def test_fewer_cases_of_every_class_than_folds_gives_nnunets_folds() -> None:
    splits = stratified_splits(CASES[:6], {case: n % 3 for n, case in enumerate(CASES[:6])})
    assert sorted(case for split in splits for case in split["val"]) == CASES[:6]


@pytest.mark.parametrize("folds", [1, 7])
def test_impossible_number_of_folds_is_refused(folds: int) -> None:
    with pytest.raises(ClassLabelsError, match=rf"expected from 2 to 6 folds for 6 cases, found {folds}"):
        stratified_splits(CASES[:6], CLASSES, folds=folds)


def test_message_names_the_command_that_helps() -> None:
    with pytest.raises(ClassLabelsError, match=r"2 to 4 folds for 4 cases, found 5\..*nnUNet3DCT_splits -d 7 -k 4$"):
        stratified_splits(CASES[:4], CLASSES, dataset="7")
    groups = {case: f"patient {n // 2}" for n, case in enumerate(CASES[:6])}
    with pytest.raises(ClassLabelsError, match=r"6 cases of 3 patients, found 5\..*-k 3$"):
        stratified_splits(CASES[:6], CLASSES, groups)
    with pytest.raises(ClassLabelsError, match="at least 2 cases of different patients, found 1 cases"):
        stratified_splits(CASES[:1], CLASSES)


def test_only_patients_of_cases_in_the_dataset_are_counted() -> None:
    groups = {case: f"patient {n // 2}" for n, case in enumerate(CASES)}
    assert count_patients(CASES[:6], groups) == 3
    assert count_patients([*CASES[:6], "stands alone", "so does this"], groups) == 5


def test_splits_are_read_by_path_or_by_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    path = tmp_path / "Dataset001_X" / "splits_final.json"
    path.parent.mkdir()
    with pytest.raises(SettingsError, match=r"splits_final\.json: expected the splits.*found none"):
        read_splits("Dataset001_X")
    splits = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    write_splits(splits, path)
    assert read_splits(path) == read_splits("Dataset001_X") == splits


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", '[["a"], ["b"]]', '[{"train": ["a"]}]', '[{"train": ["a"], "val": "b"}]',
     '[{"train": ["a"], "val": [1]}]', '[{"train": ["a"], "val": ["b"]}, null]'],
)  # fmt: skip
def test_file_that_holds_no_splits_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "splits_final.json").write_text(text)
    with pytest.raises(SettingsError, match=r"splits_final\.json.*nnUNet3DCT_splits --overwrite"):
        read_splits(tmp_path / "splits_final.json")


def test_our_own_splits_have_no_fault() -> None:
    groups = {case: f"patient_{n // 3}" for n, case in enumerate(CASES)}
    assert check_splits(stratified_splits(CASES, CLASSES, groups), CASES, groups) == []


def test_case_validated_in_two_folds_is_named() -> None:
    splits = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["a"], "val": ["b", "c"]}]
    assert check_splits(splits, ["a", "b", "c"]) == ["cases are validated in more than one fold: c"]


def test_case_on_both_sides_is_not_told_again_as_a_patient() -> None:
    splits = [{"train": ["a", "b"], "val": ["a", "c"]}]
    assert check_splits(splits, ["a", "b", "c"], {"a": "p", "b": "q", "c": "r"}) == [
        "fold 0 has cases in training and in validation: a"
    ]


def test_training_is_refused_only_where_it_cannot_run() -> None:
    path = Path("splits_final.json")
    splits = [{"train": ["a", "b"], "val": ["b"]}, {"train": ["a", "x"], "val": ["b"]}, {"train": [], "val": ["b"]}]
    doubts = require_fold(path, splits, 0, ["a", "b", "c"], {"a": "p", "b": "p"})
    assert "fold 0 has cases in training and in validation: b" in doubts[0] and "in no fold" in doubts[-1]
    with pytest.raises(SettingsError, match="fold 1: expected preprocessed cases, found also x"):
        require_fold(path, splits, 1, ["a", "b", "c"])
    with pytest.raises(SettingsError, match="fold 2: expected training cases, found none"):
        require_fold(path, splits, 2, ["a", "b", "c"])


def test_splits_that_exist_stay_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    write_splits([{"train": ["a"], "val": ["b"]}], path)
    with pytest.raises(OutputError, match=r"expected no splits yet.*--overwrite"):
        write_splits([], path)
    assert json.loads(path.read_text()) == [{"train": ["a"], "val": ["b"]}]
    write_splits([{"train": ["b"], "val": ["a"]}], path, overwrite=True)
    assert json.loads(path.read_text()) == [{"train": ["b"], "val": ["a"]}]


# ---------------------------------------------------------------------- command and trainer


def test_command_writes_where_nnunet_looks_and_shows_the_classes(
    nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    command.main(["-d", str(toy.DATASET_ID), "-k", "3"])
    path = tmp_path / "preprocessed" / toy.DATASET / "splits_final.json"
    assert [sorted(toy.CLASSES[c] for c in split["val"]) for split in json.loads(path.read_text())] == [[0, 1, 2]] * 3
    output = capsys.readouterr().out
    labels = Path(os.environ["nnUNet_raw"], toy.DATASET, "classification.json")
    assert f"written to {path}" in output and f"9 cases, classes from {labels}\n" in output
    with pytest.raises(SystemExit) as stopped:
        command.main(["-d", toy.DATASET])
    assert stopped.value.code == 2 and "--overwrite" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        command.main(["-d", str(toy.DATASET_ID), "-k", "10", "--overwrite"])
    assert stopped.value.code == 2 and f"-d {toy.DATASET_ID} -k 9" in capsys.readouterr().err
    command.main(["-d", toy.DATASET, "-k", "2", "--overwrite"])
    assert len(json.loads(path.read_text())) == 2


def test_command_counts_patients_of_the_dataset_alone(
    nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(toy_root / "raw", raw)
    rows = [(case, k, f"patient {n // 2}") for n, (case, k) in enumerate(toy.CLASSES.items())]
    elsewhere = [(f"other_{n}", n % 3, f"other patient {n}") for n in range(40)]
    table = raw / toy.DATASET / "classification.csv"
    write_class_table(table, [*rows, *elsewhere], header=("Names", "Subtype", "Patient"))
    (raw / toy.DATASET / "classification.json").unlink()
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    command.main(["-d", toy.DATASET, "-k", "3"])
    assert f"9 cases of 5 patients, classes from {table}\n" in capsys.readouterr().out


def test_command_names_a_dataset_that_is_not_there(nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["-d", "999"])
    assert stopped.value.code == 2 and "Dataset 999" in capsys.readouterr().err


def test_trainer_writes_stratified_splits_where_none_exist_and_names_missing_classes(
    nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients = "".join(f"{case},{k},{case[-1] if n else 'x'}\n" for n, (case, k) in enumerate(toy.CLASSES.items()))
    preprocessed = toy.with_changed_files(toy_root / "preprocessed", tmp_path / "preprocessed", classification={})
    (preprocessed / toy.DATASET / "classification.json").unlink()
    (preprocessed / toy.DATASET / "classification.csv").write_text(f"Names,Subtype,Patient\n{patients}")
    (preprocessed / toy.DATASET / "splits_final.json").unlink()
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadSum")
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    splits = json.loads((preprocessed / toy.DATASET / "splits_final.json").read_text())
    assert sorted(case for split in splits for case in split["val"]) == toy.CASES
    log = Path(trainer.log_file).read_text()
    assert "wrote splits stratified by class" in log
    assert "WARNING: fold 0 has no validation case of class" in log  # nine cases in five folds


def test_patients_come_from_the_csv_even_if_the_classes_come_from_the_json(tmp_path: Path) -> None:
    (tmp_path / "classification.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "classification.csv").write_text("Names,Subtype,Patient\na.nii.gz,0,p1\nb.nii.gz,1,\n")
    labels = load_class_labels(tmp_path / "classification.json")
    assert labels.groups == {"a": "p1"} and labels.by_case == {"a": 0, "b": 1}
