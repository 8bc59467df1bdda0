"""Distributed training gives what one process gives; nnU-Net's DDP with two processes on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import toy
from tests.training import two_processes

ALL = [f"nnUNetTrainer_CLSHead{n}" for n in ("Sum", "Simple", "SepOpt", "MA", "Lesion")]


@pytest.fixture
def stage1(nnunet: Path, trained_results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts for the trainers that need one."""
    stage1 = toy.trained_folder(trained_results, toy.STAGE1) / "fold_0" / "checkpoint_best.pth"
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(stage1))


@pytest.fixture
def batch(nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four samples, of which the first half has two that count for the class and the second only one."""
    labels = {**toy.CLASSES, "toy_004": -1}
    changed = toy.with_changed_files(toy_root / "preprocessed", tmp_path / "preprocessed", classification=labels)
    monkeypatch.setenv("nnUNet_preprocessed", str(changed))
    monkeypatch.delenv("nnUNet_raw")  # whose labels are others
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadSum")
    trainer.on_train_start()
    drawn = [next(trainer.dataloader_train) for _ in range(2)]
    merged = {
        "data": torch.cat([d["data"] for d in drawn]),
        "target": [torch.cat(scales) for scales in zip(*(d["target"] for d in drawn), strict=True)],
        "keys": ["toy_000", "toy_001", "toy_004", "toy_002"],
    }
    merged["target"][0][:, :, 0, 0, 0] = 2  # every patch shows the target
    torch.save(merged, tmp_path / "batch.pth")
    return tmp_path / "batch.pth"


@pytest.mark.parametrize("name", ALL)
def test_step_of_two_processes_equals_that_of_one_on_the_same_batch(
    name: str, stage1: None, batch: Path, tmp_path: Path
) -> None:
    two_processes.step(toy.get_trainer(name), torch.load(batch, weights_only=False), tmp_path / "one.pth")
    two_processes.run(two_processes.one_step, name, batch, tmp_path)
    one, first, second = (torch.load(tmp_path / f"{n}.pth") for n in ("one", "rank_0", "rank_1"))
    for key in ("loss", "cls_loss"):
        assert (first[key] + second[key]) / 2 == pytest.approx(one[key], rel=1e-5), key
    assert first["cls_loss"] != pytest.approx(second["cls_loss"], rel=1e-3)
    for key in ("head_gradients", "weights"):
        assert any(bool(v.any()) for v in one[key].values())
        for parameter, expected in one[key].items():
            assert torch.equal(first[key][parameter], second[key][parameter]), parameter
            torch.testing.assert_close(first[key][parameter], expected, rtol=2e-4, atol=2e-6, msg=parameter)


def test_training_and_validation_of_two_processes_leave_one_set_of_files(
    nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessed = toy.with_changed_files(toy_root / "preprocessed", tmp_path / "preprocessed")
    (preprocessed / toy.DATASET / "splits_final.json").unlink()  # so one process has to write it for both
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    two_processes.run(two_processes.whole_training, "nnUNetTrainer_CLSHeadSum")
    cases = len(json.loads((preprocessed / toy.DATASET / "splits_final.json").read_text())[0]["val"])
    fold = toy.trained_folder(nnunet, "nnUNetTrainer_CLSHeadSum") / "fold_0"
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=True)
    logged = checkpoint["logging"]
    assert {name: len(values) for name, values in logged.items()} == dict.fromkeys(logged, 2)
    for name in ("train_losses", "cls_train_losses", "cls_val_losses", "cls_f1_macro"):
        assert np.isfinite(logged[name]).all(), name
    assert checkpoint["mt_best_cls"]["n_cases"] == cases  # gathered from both
    metrics = json.loads((fold / "validation" / "classification_metrics.json").read_text())
    assert metrics["n_samples"] == cases
    assert len(json.loads((fold / "validation" / "summary.json").read_text())["metric_per_case"]) == cases


def test_one_process_goes_on_where_two_were_stopped(nnunet: Path) -> None:
    two_processes.run(two_processes.first_epoch, "nnUNetTrainer_CLSHeadSepOpt")
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadSepOpt", resume=True)
    assert trainer.current_epoch == 1
    trainer.run_training()


def test_class_loss_of_an_epoch_is_the_mean_over_steps_that_counted_anywhere(
    nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadSum")
    nan = float("nan")
    # two processes, three steps: (1 + 3) / 2, (0 + 4) / 2, and one without any sample that counts
    monkeypatch.setattr(trainer, "_gather", lambda own: [[1.0, nan, nan], [3.0, 4.0, nan]])
    trainer.on_train_epoch_end([{"loss": np.float32(0), "cls_loss": nan}] * 3)
    assert trainer.logger.get_value("cls_train_losses", step=-1) == pytest.approx(2.0)
