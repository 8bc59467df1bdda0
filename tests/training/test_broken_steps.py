"""Losses and gradients that are no numbers: steps left out, counted, and stopped after a limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_3dct.errors import (
    TrainingError,
)
from tests import toy

SUM = "nnUNetTrainer_CLSHeadSum"


@pytest.fixture
def trainer(nnunet: Path):
    """Ready for its first step."""
    made = toy.get_trainer(SUM)
    made.max_skipped_steps = 3
    made.on_train_start()
    made.on_train_epoch_start()
    return made


def weights(trainer: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in trainer.network.parameters()])


def break_loss(trainer: Any, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    sound = trainer.loss
    monkeypatch.setattr(trainer, "loss", lambda output, target: sound(output, target) * factor)


def break_gradients(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss stays a number, its gradient does not."""
    sound = trainer.loss

    def loss(output: list[torch.Tensor], target: Any) -> torch.Tensor:
        zero = output[0].sum() * 0
        return sound(output, target) + torch.sqrt(zero) * 0

    monkeypatch.setattr(trainer, "loss", loss)


def test_step_with_infinite_loss_is_skipped_and_counted(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, before = next(trainer.dataloader_train), weights(trainer)
    with monkeypatch.context() as broken:
        break_loss(trainer, broken, float("inf"))
        trainer.train_step(batch)
    assert torch.equal(weights(trainer), before)
    trainer.train_step(batch)
    after = weights(trainer)
    assert not torch.equal(after, before) and bool(torch.isfinite(after).all())
    log = Path(trainer.log_file).read_text()
    assert log.count("step skipped (1 so far)") == 1
    assert all(case in log for case in batch["keys"])


def test_skipped_steps_in_a_row_stop_training_and_name_the_cases(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = next(trainer.dataloader_train)
    break_gradients(trainer, monkeypatch)
    trainer.train_step(batch)
    trainer.train_step(batch)
    with pytest.raises(TrainingError, match="found 3 steps in a row without") as caught:
        trainer.train_step(batch)
    assert all(case in str(caught.value) for case in batch["keys"])
    assert "--c" in str(caught.value)


def test_skipped_steps_that_are_not_in_a_row_do_not_stop_training(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = next(trainer.dataloader_train)
    outputs = []
    for _ in range(4):
        with monkeypatch.context() as broken:
            break_gradients(trainer, broken)
            outputs.append(trainer.train_step(batch))
        outputs.append(trainer.train_step(batch))
    trainer.on_train_epoch_end(outputs)
    assert trainer.logger.get_value("skipped_steps", step=None) == [4]


@pytest.mark.parametrize("part", ["segmentation", "class"])
def test_loss_that_turns_nan_stops_at_once_and_names_the_cases(
    part: str, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, before = next(trainer.dataloader_train), weights(trainer)
    if part == "segmentation":
        break_loss(trainer, monkeypatch, float("nan"))
    else:
        trainer.class_weight = torch.tensor([float("nan")] * 3)
    with pytest.raises(TrainingError, match="expected a number as loss, found NaN") as caught:
        trainer.train_step(batch)
    assert all(case in str(caught.value) for case in batch["keys"])
    assert torch.equal(weights(trainer), before)


def test_class_loss_of_a_batch_without_any_known_class_leaves_the_head_alone(
    nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {case: -1 if case in toy.TRAINING else k for case, k in toy.CLASSES.items()}
    toy.use_labels(monkeypatch, toy_root, tmp_path / "pre", labels)
    made = toy.get_trainer(SUM)
    made.weight_decay = 0
    made.on_train_start()
    made.on_train_epoch_start()
    before = json.dumps([p.tolist() for p in made.multitask_network.cls_head.final_fc.parameters()])
    unet = weights(made)
    made.on_train_epoch_end([made.train_step(next(made.dataloader_train))])
    assert json.dumps([p.tolist() for p in made.multitask_network.cls_head.final_fc.parameters()]) == before
    assert not torch.equal(weights(made), unet)


def test_loss_that_is_nan_under_a_gradient_scaler_is_a_skipped_step(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    batch, before = next(trainer.dataloader_train), weights(trainer)
    head = {k: v.clone() for k, v in trainer.multitask_network.cls_head.state_dict().items()}
    with monkeypatch.context() as broken:
        break_loss(trainer, broken, float("nan"))
        trainer.train_step(batch)
    assert torch.equal(weights(trainer), before) and trainer.skipped_steps.total == 1
    assert trainer.grad_scaler.get_scale() == 4.0
    assert all(torch.equal(v, head[k]) for k, v in trainer.multitask_network.cls_head.state_dict().items())
    trainer.train_step(batch)
    assert not torch.equal(weights(trainer), before) and trainer.skipped_steps.in_a_row == 0


def test_scaler_that_never_finds_a_scale_stops_after_three_times_as_many_steps(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    batch = next(trainer.dataloader_train)
    break_loss(trainer, monkeypatch, float("nan"))
    for _ in range(8):
        trainer.train_step(batch)
    with pytest.raises(TrainingError, match="found 9 steps in a row without"):
        trainer.train_step(batch)
