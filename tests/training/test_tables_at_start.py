"""Class labels, names of the classes and splits are checked before a training makes its first folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_3dct.errors import ClassLabelsError, SettingsError
from tests import toy
from tests.utils import write_class_labels

TRAINER = "nnUNetTrainer_CLSHeadSum"


@pytest.fixture
def preprocessed(toy_root: Path, nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A preprocessed dataset of this test's own."""
    folder = toy.with_changed_files(toy_root / "preprocessed", tmp_path / "preprocessed", classification=toy.CLASSES)
    monkeypatch.setenv("nnUNet_preprocessed", str(folder))
    return folder / toy.DATASET


def write_splits(folder: Path, *folds: tuple[list[str], list[str]]) -> None:
    (folder / "splits_final.json").unlink()
    (folder / "splits_final.json").write_text(json.dumps([{"train": t, "val": v} for t, v in folds]))


def test_class_names_of_another_number_are_refused(preprocessed: Path, nnunet: Path) -> None:
    description = json.loads((preprocessed / "dataset.json").read_text())
    (preprocessed / "dataset.json").unlink()
    (preprocessed / "dataset.json").write_text(json.dumps({**description, "class_names": ["low", "high"]}))
    with pytest.raises(ClassLabelsError, match=r"expected 3 names, since the classes are 0 to 2, found 2: low, high"):
        toy.get_trainer(TRAINER)
    assert not nnunet.exists()


def test_labels_that_the_check_would_not_read_are_refused(preprocessed: Path, nnunet: Path) -> None:
    write_class_labels(preprocessed, {**toy.CLASSES, "toy_004": 2})
    with pytest.raises(ClassLabelsError, match="toy_004: class 2 in the first, 1 in the second"):
        toy.get_trainer(TRAINER)
    assert not nnunet.exists()


def test_splits_with_a_case_that_was_not_preprocessed_are_refused(preprocessed: Path, nnunet: Path) -> None:
    write_splits(preprocessed, ([*toy.TRAINING, "toy_042"], toy.VALIDATION))
    with pytest.raises(SettingsError, match="fold 0: expected preprocessed cases, found also toy_042"):
        toy.get_trainer(TRAINER)
    assert not nnunet.exists()


def test_log_names_the_labels_and_every_doubt_about_the_splits(preprocessed: Path) -> None:
    write_splits(preprocessed, (toy.TRAINING[:5], toy.VALIDATION[:1]))
    trainer = toy.get_trainer(TRAINER)
    trainer.on_train_start()
    log = Path(trainer.log_file).read_text()
    assert f"Class labels: {preprocessed / 'classification.json'}" in log
    assert "WARNING: splits_final.json: 3 cases are in no fold" in log and "toy_005, toy_007, toy_008" in log


def test_fewer_cases_than_folds_name_the_command_that_helps(preprocessed: Path) -> None:
    (preprocessed / "splits_final.json").unlink()
    data = next(path for path in preprocessed.iterdir() if path.is_dir() and path.name.endswith("3d_fullres"))
    whole = data.resolve()
    data.unlink()
    data.mkdir()
    for path in whole.iterdir():
        if path.name.startswith(tuple(toy.CASES[:4])):
            (data / path.name).symlink_to(path)
    trainer = toy.get_trainer(TRAINER)
    with pytest.raises(ClassLabelsError, match=rf"4 cases, found 5.*nnUNet3DCT_splits -d {toy.DATASET} -k 4"):
        trainer.get_tr_and_val_datasets()
