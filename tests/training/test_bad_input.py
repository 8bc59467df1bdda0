"""Faulty inputs stop a training before its first folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_3dct.errors import (
    CheckpointError,
    ClassLabelsError,
    NNUNet3DCTError,
    SettingsError,
)
from nnunet_3dct.training.preflight import require_mps_fallback
from tests import toy
from tests.utils import truncate

SUM = "nnUNetTrainer_CLSHeadSum"
PRE = "NNUNETV2_PRE_CHECKPOINT_PATH"


@pytest.fixture
def stage1(trained_results: Path, tmp_path: Path) -> Path:
    """A copy of the stage-1 checkpoint."""
    source = toy.trained_folder(trained_results, toy.STAGE1) / "fold_0" / "checkpoint_best.pth"
    copy = tmp_path / "stage1.pth"
    copy.write_bytes(source.read_bytes())
    return copy


def refused(results: Path, expected: type[NNUNet3DCTError], start: Callable[[], Any]) -> str:
    """The message; asserts that nothing was written to ``nnUNet_results``."""
    with pytest.raises(expected) as caught:
        start()
    assert toy.folders_below(results) == []
    return str(caught.value)


def test_fine_tuning_without_stage1_says_how_to_get_one(nnunet: Path) -> None:
    message = refused(nnunet, CheckpointError, lambda: toy.train(toy.FINE_TUNING))
    for words in (PRE, toy.FINE_TUNING, "variable not set", "Train stage 1", "checkpoint_best.pth"):
        assert words in message


def test_missing_stage1_file_is_named(nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRE, str(tmp_path / "typo.pth"))
    message = refused(nnunet, CheckpointError, lambda: toy.train(toy.FINE_TUNING))
    assert f"{tmp_path / 'typo.pth'}: expected a file, found none" in message


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.98])
def test_truncated_stage1_checkpoint_is_named(
    fraction: float, nnunet: Path, stage1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PRE, str(truncate(stage1, fraction)))
    message = refused(nnunet, CheckpointError, lambda: toy.train(toy.FINE_TUNING))
    assert f"{stage1} ({stage1.stat().st_size} bytes) cannot be read" in message
    assert "cut off" in message


@pytest.mark.parametrize(
    ("configuration", "plans"),
    [("2d", toy.PLANS), ("3d_fullres", toy.RESENC_PLANS)],
    ids=["dimension", "encoder"],
)
def test_stage1_of_another_network_is_refused_naming_parameters(
    configuration: str, plans: str, nnunet: Path, stage1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PRE, str(stage1))
    message = refused(nnunet, CheckpointError, lambda: toy.get_trainer(toy.FINE_TUNING, configuration, plans))
    assert f"{stage1} belongs to another network" in message
    assert "parameters differ" in message and "encoder." in message


def test_head_for_another_number_of_classes_is_refused(
    nnunet: Path, trained_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = toy.trained_folder(trained_results, toy.FINE_TUNING) / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(source, weights_only=True)
    checkpoint["cls_head_config"]["num_classes"] = 5
    torch.save(checkpoint, tmp_path / "five.pth")
    monkeypatch.setenv(PRE, str(tmp_path / "five.pth"))
    message = refused(nnunet, CheckpointError, lambda: toy.train(toy.FINE_TUNING))
    assert "expected a head for 3 classes, found one for 5" in message


def labels_of(toy_root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, labels: dict[str, Any]) -> None:
    """Let the preprocessed dataset have ``labels`` as its classification.json."""
    toy.use_labels(monkeypatch, toy_root, folder, labels)


def test_every_case_without_class_is_listed(
    nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {case: k for case, k in toy.CLASSES.items() if case not in ("toy_002", "toy_007")}
    labels_of(toy_root, tmp_path / "pre", monkeypatch, labels)
    message = refused(nnunet, ClassLabelsError, lambda: toy.train(SUM))
    assert "toy_002: has no label" in message and "toy_007: has no label" in message
    assert "toy_003" not in message


def test_gap_in_the_classes_is_named(
    nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels_of(toy_root, tmp_path / "pre", monkeypatch, {c: 3 if k == 1 else k for c, k in toy.CLASSES.items()})
    assert "class 1 has no case although class 3 exists" in refused(nnunet, ClassLabelsError, lambda: toy.train(SUM))


@pytest.mark.parametrize(("number", "words"), [("2", "out of range"), ("4", "hold only the classes 0 to 2")])
def test_number_of_classes_must_agree_with_the_labels(
    number: str, words: str, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNETV2_MT_NUM_CLS", number)
    message = refused(nnunet, ClassLabelsError, lambda: toy.train(SUM))
    assert f"NNUNETV2_MT_NUM_CLS={number}" in message and words in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NNUNETV2_MT_LR", "fast", "NNUNETV2_MT_LR: expected a number above 0, found 'fast'"),
        ("NNUNETV2_MT_EPOCH", "3", "NNUNETV2_MT_EPOCH: no such variable"),
        ("NNUNETV2_MT_CLASS_WEIGHTS", "1,2", "expected 3 weights"),
        ("NNUNETV2_MT_TARGET_LABELS", "lession", "found 'lession'"),
    ],
)
def test_bad_variable_is_named(
    name: str, value: str, words: str, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert words in refused(nnunet, SettingsError, lambda: toy.train(SUM))


def test_resuming_with_other_classes_is_refused(
    nnunet: Path, trained_results: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.copy_model(toy.trained_folder(trained_results, toy.FINE_TUNING), nnunet)
    described = json.loads((toy_root / "preprocessed" / toy.DATASET / "dataset.json").read_text())
    labels = {c: min(k, 1) for c, k in toy.CLASSES.items()}
    description = {**described, "class_names": toy.CLASS_NAMES[:2]}
    toy.use_labels(monkeypatch, toy_root, tmp_path / "pre", labels, dataset=description)
    with pytest.raises(CheckpointError, match="expected a head for 2 classes, found one for 3"):
        toy.get_trainer(toy.FINE_TUNING, resume=True)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NNUNETV2_MT_LOSS_WEIGHT", "0.5", "NNUNETV2_MT_LOSS_WEIGHT: expected 0.3, found 0.5"),
        ("NNUNETV2_MT_EPOCHS", "9", "NNUNETV2_MT_EPOCHS: expected 2, found 9"),
        ("NNUNETV2_MT_CLASS_WEIGHTS", "balanced", "NNUNETV2_MT_CLASS_WEIGHTS: expected none, found balanced"),
    ],
)
def test_resuming_with_other_settings_is_refused_and_shows_the_difference(
    name: str, value: str, words: str, nnunet: Path, trained_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = toy.copy_model(toy.trained_folder(trained_results, toy.FINE_TUNING), nnunet)
    before = {path.name: path.read_bytes() for path in (copy / "fold_0").glob("*.pth")}
    monkeypatch.setenv(name, value)
    with pytest.raises(CheckpointError) as caught:
        toy.get_trainer(toy.FINE_TUNING, resume=True).run_training()
    assert words in str(caught.value) and "1 settings or labels differ" in str(caught.value)
    assert {path.name: path.read_bytes() for path in (copy / "fold_0").glob("*.pth")} == before


def test_resuming_with_a_changed_label_is_refused_and_names_the_case(
    nnunet: Path, trained_results: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.copy_model(toy.trained_folder(trained_results, toy.FINE_TUNING), nnunet)
    labels_of(toy_root, tmp_path / "pre", monkeypatch, {**toy.CLASSES, "toy_004": 2})
    with pytest.raises(CheckpointError, match="toy_004: expected class 1 for training, found class 2 for training"):
        toy.get_trainer(toy.FINE_TUNING, resume=True).run_training()


def test_resuming_on_other_splits_is_refused(
    nnunet: Path, trained_results: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.copy_model(toy.trained_folder(trained_results, toy.FINE_TUNING), nnunet)
    splits = [{"train": [*toy.TRAINING[1:], "toy_006"], "val": ["toy_000", *toy.VALIDATION[1:]]}]
    changed = toy.with_changed_files(toy_root / "preprocessed", tmp_path / "pre", splits_final=splits)
    monkeypatch.setenv("nnUNet_preprocessed", str(changed))
    with pytest.raises(CheckpointError, match="toy_006: expected class 0 for validation, found class 0 for training"):
        toy.get_trainer(toy.FINE_TUNING, resume=True).run_training()


@pytest.mark.parametrize("resume", [True, False], ids=["--c", "--val"])
def test_other_target_labels_than_the_checkpoints_are_refused(
    resume: bool, nnunet: Path, trained_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.copy_model(toy.trained_folder(trained_results, toy.FINE_TUNING), nnunet)
    monkeypatch.setenv("NNUNETV2_MT_TARGET_LABELS", "lesion")
    with pytest.raises(CheckpointError, match=r"labels \[1, 2\], found \[2\]. Set NNUNETV2_MT_TARGET_LABELS=1,2"):
        toy.train(toy.FINE_TUNING, continue_training=resume, only_run_validation=not resume)


def test_the_default_spelt_out_is_no_difference(
    nnunet: Path, trained_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.copy_model(toy.trained_folder(trained_results, toy.FINE_TUNING), nnunet)
    for name, value in {"LR": "0.001", "CLASS_WEIGHTS": "none", "TARGET_LABELS": "organ,2", "NUM_CLS": "3"}.items():
        monkeypatch.setenv(f"NNUNETV2_MT_{name}", value)
    toy.get_trainer(toy.FINE_TUNING, resume=True).on_train_start()


@pytest.mark.parametrize("value", [None, "0"])
def test_training_on_mps_without_the_cpu_for_what_it_lacks_says_what_to_set(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    if value is not None:
        monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", value)
    with pytest.raises(SettingsError, match="export PYTORCH_ENABLE_MPS_FALLBACK=1"):
        require_mps_fallback(torch.device("mps"))
    require_mps_fallback(torch.device("cpu"))
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    require_mps_fallback(torch.device("mps"))
