"""Folds stratified by class and kept apart by patient."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct.cli import splits as command
from nnunet_3dct.data.splits import folds_without_class, stratified_splits, write_splits
from nnunet_3dct.errors import ClassLabelsError, OutputError
from nnunet_3dct.formats.class_labels import load_class_labels
from tests import toy

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
    assert str(path) in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        command.main(["-d", toy.DATASET])
    assert stopped.value.code == 1 and "--overwrite" in capsys.readouterr().err
    command.main(["-d", toy.DATASET, "-k", "2", "--overwrite"])
    assert len(json.loads(path.read_text())) == 2


def test_command_names_a_dataset_that_is_not_there(nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["-d", "999"])
    assert stopped.value.code == 1 and "-d 999" in capsys.readouterr().err


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
