"""Averaged weights validate and are saved, training goes on with the weights themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from nnunet_3dct.errors import CheckpointError, SettingsError
from nnunet_3dct.networks.multitask_unet import uncompiled
from nnunet_3dct.training.weight_average import WeightAverage, decay_of
from tests import toy
from tests.training import two_processes

LESION, SUM = "nnUNetTrainer_CLSHeadLesion", "nnUNetTrainer_CLSHeadSum"
EMA = "NNUNETV2_MT_EMA"


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def copy_of(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# ---------------------------------------------------------------------- the average itself


def moving_average(values: list[float], decay: float) -> float:
    """By its definition, in plain Python; the first value is the start, later decays rise to ``decay``."""
    average = values[0]
    for n, value in enumerate(values[1:], start=1):
        share = 1 - min(decay, (1 + n) / (10 + n))
        average = (1 - share) * average + share * value
    return average


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_average_is_the_moving_average_of_all_weights_so_far(decay: float) -> None:
    network = nn.Linear(3, 2).double()
    average = WeightAverage(network, decay)
    rng, seen = np.random.default_rng(0), []
    for _ in range(60):
        seen.append(float(rng.normal()))
        network.weight.data.fill_(seen[-1])
        average.update()
    with average.in_place():
        assert network.weight[0, 0].item() == pytest.approx(moving_average(seen, decay), rel=1e-9)
    assert network.weight[0, 0].item() == seen[-1]


def test_start_has_faded_after_a_hundred_updates_of_a_long_average() -> None:
    network = nn.Linear(1, 1)
    network.weight.data.fill_(1000.0)
    average = WeightAverage(network, 0.9999)
    for n in range(100):
        network.weight.data.fill_(1000.0 if n == 0 else 1.0)
        average.update()
    average.put_in_place()
    assert network.weight.item() == pytest.approx(1.0, abs=0.01)  # 0.9999 alone would leave 990


def test_decay_rises_to_the_one_that_was_asked_for() -> None:
    assert [decay_of(n, 0.9) for n in (0, 10, 79, 80, 81, 10**6)] == pytest.approx([0.1, 0.55, 80 / 89, 0.9, 0.9, 0.9])


def test_buffers_are_those_of_the_last_update() -> None:
    network = nn.BatchNorm1d(2)
    average = WeightAverage(network, 0.9)
    for value in (1.0, 2.0):
        network.running_mean.fill_(value)
        average.update()
    network.running_mean.fill_(3.0)
    average.put_in_place()
    assert network.running_mean.tolist() == [2.0, 2.0]
    average.put_back()
    assert network.running_mean.tolist() == [3.0, 3.0]


def test_before_any_step_the_average_is_the_network_as_it_is_now() -> None:
    network = nn.Linear(2, 2)
    average = WeightAverage(network, 0.9)
    network.weight.data.fill_(7.0)  # as a checkpoint is loaded
    with average.in_place():
        assert bool((network.weight == 7.0).all())


def test_averaging_the_average_is_a_mistake_that_is_told() -> None:
    average = WeightAverage(nn.Linear(2, 2), 0.9)
    average.put_in_place()
    with pytest.raises(RuntimeError, match="found their average"):
        average.update()


# ---------------------------------------------------------------------- training


def record_steps(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The parameters after every step of a training, as they come."""
    steps: list[dict[str, torch.Tensor]] = []
    train_step = trainer.train_step

    def step(batch: dict[str, Any]) -> Any:
        result = train_step(batch)
        steps.append(copy_of(dict(trainer.bare_network.named_parameters())))
        return result

    monkeypatch.setattr(trainer, "train_step", step)
    return steps


@pytest.mark.parametrize("name", [toy.STAGE1, SUM])
def test_checkpoints_hold_the_average_and_beside_it_the_weights_of_the_last_step(
    name: str, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMA, "0.6")
    trainer = toy.get_trainer(name)
    steps = record_steps(trainer, monkeypatch)
    trainer.run_training()
    assert len(steps) == 4
    final = load(Path(trainer.output_folder) / "checkpoint_final.pth")
    head = {f"cls_head.{k}": v for k, v in final.get("cls_head_state", {}).items()}
    saved = {**final["network_weights"], **head}
    for parameter, last in steps[-1].items():
        expected = moving_average([s[parameter].double().numpy() for s in steps], 0.6)  # type: ignore[arg-type]
        np.testing.assert_allclose(saved[parameter].numpy(), expected, rtol=1e-4, atol=1e-6, err_msg=parameter)
        assert torch.equal(final["mt_weight_average"]["trained_weights"][parameter], last), parameter
    assert not equal({k: saved[k] for k in steps[-1]}, steps[-1])
    assert (final["mt_weight_average"]["decay"], final["mt_weight_average"]["updates"]) == (0.6, 4)


def test_training_itself_is_the_same_with_and_without_the_average(
    nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The averages only watch: the raw weights of a seeded run do not depend on them."""
    ends = []
    for decay in ("", "0.9"):
        monkeypatch.setenv(EMA, decay)
        monkeypatch.setenv("nnUNet_results", str(tmp_path / f"with{decay}"))
        trainer = toy.get_trainer(SUM)
        steps = record_steps(trainer, monkeypatch)
        trainer.run_training()
        ends.append(steps[-1])
    assert equal(*ends)


def test_class_score_and_pseudo_dice_of_an_epoch_are_those_of_the_average(
    nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMA, "0.9")
    trainer = toy.get_trainer(SUM)
    seen: list[dict[str, torch.Tensor]] = []

    def note(*_: Any) -> None:
        seen.append(copy_of(trainer.multitask_network.state_dict()))

    trainer.initialize()
    trainer.network.register_forward_pre_hook(lambda *_: None if trainer.network.training else note())
    trainer.run_training()
    folder = Path(trainer.output_folder)
    final = load(folder / "checkpoint_final.pth")
    expected = {**final["network_weights"], **{f"cls_head.{k}": v for k, v in final["cls_head_state"].items()}}
    assert len(seen) > 6  # patches and windows of both epochs
    assert equal(seen[-1], expected)
    before = len(seen)
    trainer.perform_actual_validation(False)
    assert len(seen) == before or equal(seen[-1], expected)


def stop_at_the_second_epoch(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Train one epoch, then be interrupted; returns the folder of the fold."""
    trainer.save_every = 1
    start_epoch = trainer.on_epoch_start

    def stop() -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt
        start_epoch()

    monkeypatch.setattr(trainer, "on_epoch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    return Path(trainer.output_folder)


@pytest.mark.parametrize("name", [toy.STAGE1, LESION])
def test_interrupted_training_reaches_the_average_and_the_weights_of_an_unbroken_one(
    name: str, nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMA, "0.9")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "unbroken"))
    unbroken = toy.get_trainer(name)
    unbroken.run_training()
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "interrupted"))
    folder = stop_at_the_second_epoch(toy.get_trainer(name), monkeypatch)
    resumed = toy.get_trainer(name, resume=True)
    assert resumed.current_epoch == 1
    resumed.run_training()
    found, expected = (load(Path(f) / "checkpoint_final.pth") for f in (folder, unbroken.output_folder))
    for part in {"network_weights", "cls_head_state"} & expected.keys():
        assert equal(found[part], expected[part]), part
    if name == LESION:  # training is over once the head is fitted: there is nothing to go on with
        assert "mt_weight_average" not in found and "mt_weight_average" not in expected
    else:
        assert found["mt_weight_average"].keys() == expected["mt_weight_average"].keys()
        assert found["mt_weight_average"]["updates"] == 4
        assert equal(found["mt_weight_average"]["trained_weights"], expected["mt_weight_average"]["trained_weights"])
    for key in ("train_losses", "val_losses", "ema_fg_dice"):
        assert found["logging"][key] == expected["logging"][key], key


@pytest.mark.parametrize("name", [toy.STAGE1, SUM])
@pytest.mark.parametrize(("began", "now"), [("0.9", ""), ("0.9", "0.99"), ("", "0.9")])
def test_going_on_with_another_average_is_refused(
    name: str, began: str, now: str, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMA, began)
    monkeypatch.setenv("NNUNETV2_MT_ITERS_PER_EPOCH", "1")
    stop_at_the_second_epoch(toy.get_trainer(name), monkeypatch)
    monkeypatch.setenv(EMA, now)
    with pytest.raises(CheckpointError, match=f"NNUNETV2_MT_EMA: expected {began or None}, found {now or None}"):
        toy.get_trainer(name, resume=True).on_train_start()


def test_validation_alone_uses_the_average_without_the_variable(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMA, "0.9")
    trainer = toy.get_trainer(SUM)
    trainer.run_training()
    monkeypatch.delenv(EMA)
    again = toy.get_trainer(SUM)
    again.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    final = load(Path(trainer.output_folder) / "checkpoint_final.pth")
    assert equal(again.multitask_network.unet_state_dict(), final["network_weights"])
    assert not equal(
        {k: final["mt_weight_average"]["trained_weights"][k] for k in final["network_weights"]},
        final["network_weights"],
    )


def test_stock_prediction_takes_the_average_of_a_stage_1_checkpoint(
    nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMA, "0.9")
    toy.get_trainer(toy.STAGE1).run_training()
    monkeypatch.delenv(EMA)
    folder = toy.trained_folder(nnunet, toy.STAGE1)
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    final = load(folder / "fold_0" / "checkpoint_final.pth")
    assert equal(predictor.list_of_parameters[0], final["network_weights"])


def test_without_the_setting_a_checkpoint_holds_no_average(trained_results: Path) -> None:
    for name in (toy.STAGE1, toy.FINE_TUNING):
        checkpoint = torch.load(
            toy.trained_folder(trained_results, name) / "fold_0" / "checkpoint_final.pth", weights_only=False
        )
        assert "mt_weight_average" not in checkpoint


def test_step_that_is_left_out_is_no_update(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMA, "0.9")
    trainer = toy.get_trainer(SUM)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, limit: torch.tensor(float("inf")))
    trainer.train_step(batch)
    assert trainer.skipped_steps.total == 1
    with trainer.weight_average.in_place():
        assert trainer.weight_average.state()["updates"] == 1


def test_compiled_network_is_averaged_as_one_that_is_not(
    nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMA, "0.7")
    ends = []
    for compiled in (False, True):
        torch._dynamo.reset()
        monkeypatch.setenv("nnUNet_results", str(tmp_path / str(compiled)))
        trainer = toy.get_trainer(SUM)
        trainer.initialize()
        if compiled:
            trainer.network = torch.compile(trainer.network, backend="eager")
            assert uncompiled(trainer.network) is trainer.bare_network
        trainer.run_training()
        trainer.perform_actual_validation(False)
        report = Path(trainer.output_folder) / "validation" / "toy_006_classification.json"
        ends.append((load(Path(trainer.output_folder) / "checkpoint_final.pth"), json.loads(report.read_text())))
    torch._dynamo.reset()
    (plain, first), (other, second) = ends
    for part in ("network_weights", "cls_head_state"):
        for key, expected in plain[part].items():
            torch.testing.assert_close(other[part][key], expected, msg=key)
    assert second["probs"] == pytest.approx(first["probs"], abs=1e-5)


def test_two_processes_have_one_average(nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMA, "0.7")
    two_processes.run(two_processes.averages_of_a_training, SUM, tmp_path)
    first, second = (torch.load(tmp_path / f"rank_{n}.pth") for n in range(2))
    final = load(toy.trained_folder(nnunet, SUM) / "fold_0" / "checkpoint_final.pth")
    assert equal(first["average"], second["average"]) and equal(first["trained"], second["trained"])
    assert not equal(first["average"], first["trained"])
    assert equal({k: first["average"][k] for k in final["network_weights"]}, final["network_weights"])


def test_decay_out_of_range_stops_before_any_work(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMA, "1")
    with pytest.raises(SettingsError, match="NNUNETV2_MT_EMA: expected a number between 0 and 1"):
        toy.get_trainer(toy.STAGE1)
    assert toy.folders_below(nnunet) == []
