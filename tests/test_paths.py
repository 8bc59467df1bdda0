"""Where datasets, splits, labels, models and folds lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_3dct.errors import CheckpointError, SettingsError
from nnunet_3dct.paths import (
    dataset_name,
    find_folds,
    find_model_folder,
    find_raw_dataset,
    labels_folders,
    nnunet_folder,
    splits_path,
)

NAME = "Dataset042_Lesions"
TRAINER, PLANS, CONFIGURATION = "nnUNetTrainer_CLSHeadSum", "nnUNetPlans", "3d_fullres"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name / NAME).mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


@pytest.mark.parametrize("value", [None, ""])
def test_variable_that_is_not_set_is_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_raw", value)
    with pytest.raises(SettingsError, match=r"nnUNet_raw: expected a folder, found it not set\. export nnUNet_raw="):
        nnunet_folder("nnUNet_raw")
    assert [folder for folder in labels_folders(NAME) if folder.parent.name == "raw"] == []


def test_labels_are_searched_beside_the_preprocessed_then_the_raw_data(root: Path) -> None:
    assert labels_folders(NAME) == [root / "preprocessed" / NAME, root / "raw" / NAME]
    assert splits_path(NAME) == root / "preprocessed" / NAME / "splits_final.json"


@pytest.mark.parametrize("dataset", [42, "42", "042", NAME])
def test_dataset_is_found_by_number_and_name(dataset: str | int, root: Path) -> None:
    assert dataset_name(dataset) == NAME
    assert find_raw_dataset(str(dataset)) == root / "raw" / NAME


def test_dataset_is_found_by_path(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    assert find_raw_dataset(str(tmp_path / "raw" / NAME)) == (tmp_path / "raw" / NAME).resolve()


@pytest.mark.parametrize("dataset", ["7", "Dataset007_No", "lesions"])
def test_unknown_dataset_is_named(dataset: str, root: Path) -> None:
    with pytest.raises(SettingsError, match=f"^Dataset {dataset}: "):
        find_raw_dataset(dataset)


def make_model(root: Path, trainer: str, *files: str) -> Path:
    folder = root / "results" / NAME / f"{trainer}__{PLANS}__{CONFIGURATION}"
    for file in files or ("fold_0/checkpoint_final.pth",):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def test_model_of_the_trainer_or_of_its_only_relative(root: Path) -> None:
    fine_tuned = make_model(root, f"{TRAINER}FT")
    assert find_model_folder("42", TRAINER, PLANS, CONFIGURATION) == fine_tuned
    make_model(root, f"{TRAINER}Other")
    with pytest.raises(CheckpointError, match=rf"Present in .*{TRAINER}FT__.*{TRAINER}Other__"):
        find_model_folder("42", TRAINER, PLANS, CONFIGURATION)
    exact = make_model(root, TRAINER)
    assert find_model_folder("42", TRAINER, PLANS, CONFIGURATION) == exact


def test_folds_are_those_with_the_checkpoint(root: Path) -> None:
    folder = make_model(root, TRAINER, "fold_10/a.pth", "fold_2/a.pth", "fold_3/b.pth", "fold_all/a.pth")
    assert find_folds(folder, None, "a.pth") == [2, 10]
    assert find_folds(make_model(root, "Other", "fold_all/a.pth"), None, "a.pth") == ["all"]
    assert find_folds(folder, ["0", "all"], "a.pth") == [0, "all"]
    with pytest.raises(CheckpointError, match=r"expected a fold with c\.pth, found fold_10/a\.pth"):
        find_folds(folder, None, "c.pth")
    with pytest.raises(SettingsError, match="expected numbers or all, found one, -1"):
        find_folds(folder, ["one", "-1"], "a.pth")
