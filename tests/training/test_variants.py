"""One battery over all multi-task trainers, then what each of them promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_3dct.cli import predict
from nnunet_3dct.training import variants as trainers
from nnunet_3dct.training.schedule import split_parameters
from nnunet_3dct.training.trainer import MultiTaskTrainer
from tests import toy

ALL = sorted(
    name
    for name, value in vars(trainers).items()
    if isinstance(value, type) and issubclass(value, MultiTaskTrainer) and value is not MultiTaskTrainer
)
every_trainer = pytest.mark.parametrize("name", ALL)
PRE = "NNUNETV2_PRE_CHECKPOINT_PATH"


@pytest.fixture(autouse=True)
def small_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention head is made for networks of another size; the battery over heads has it in full."""
    options = {"width": 16, "memory": 6, "depth": 2, "attention_heads": 4, "tokens": [2, 3, 2], "standardize": True}
    monkeypatch.setattr(trainers.nnUNetTrainer_CLSHeadMA, "head_options", options)


@pytest.fixture
def stage1(trained_results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stage-1 checkpoint, set as the start of fine-tuning."""
    path = toy.trained_folder(trained_results, toy.STAGE1) / "fold_0" / "checkpoint_best.pth"
    monkeypatch.setenv(PRE, str(path))
    return path


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def assert_same_state(found: Any, expected: Any) -> None:
    """Equal tensors and values, however deep."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same_state(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same_state(a, b)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def stop_before_epoch(trainer: Any, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, saving every epoch, and die at the start of ``epoch`` as by Ctrl-C."""
    trainer.save_every = 1
    start = trainer.on_epoch_start

    def die() -> None:
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt
        start()

    with monkeypatch.context() as context:
        context.setattr(trainer, "on_epoch_start", die)
        with pytest.raises(KeyboardInterrupt):
            trainer.run_training()


def first_step(name: str, configuration: str = "3d_fullres") -> Any:
    """A trainer ready for its first training step."""
    trainer = toy.get_trainer(name, configuration)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    return trainer


def test_the_family_is_complete() -> None:
    assert [f"nnUNetTrainer_CLSHead{n}" for n in ("Lesion", "MA", "SepOpt", "Simple", "Sum", "SumFT")] == ALL


# ---------------------------------------------------------------------- the battery


@every_trainer
def test_trains_resumes_to_the_same_state_validates_and_predicts(
    name: str, nnunet: Path, stage1: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.get_trainer(name).run_training()
    folder = toy.trained_folder(nnunet, name)
    unbroken = load(folder / "fold_0" / "checkpoint_final.pth")
    for log in ("train_losses", "cls_train_losses", "cls_val_losses", "cls_f1_macro", "ema_fg_dice"):
        assert np.isfinite(unbroken["logging"][log]).all(), log
    assert unbroken["logging"]["skipped_steps"] == [0, 0]

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "second"))
    stop_before_epoch(toy.get_trainer(name), 1, monkeypatch)
    resumed = toy.get_trainer(name, resume=True)
    assert resumed.current_epoch == 1
    resumed.run_training()
    again = load(toy.trained_folder(tmp_path / "second", name) / "fold_0" / "checkpoint_final.pth")
    for key in ("network_weights", "cls_head_state", "optimizer_state", "mt_best_cls"):
        assert_same_state(again[key], unbroken[key])

    monkeypatch.setenv("nnUNet_results", str(nnunet))
    toy.train(name, only_run_validation=True)
    metrics = json.loads((folder / "fold_0" / "validation" / "classification_metrics.json").read_text())
    assert metrics["n_samples"] == len(toy.VALIDATION)

    out = tmp_path / "predictions"
    flags = f"-d {toy.DATASET} -c 3d_fullres -tr {name} -p {toy.PLANS} -f 0 -device cpu --disable_tta"
    assert predict.main(["-i", str(images), "-o", str(out), *flags.split()]) in (0, None)
    for n in range(3):
        report = json.loads((out / f"new_{n:03d}_classification.json").read_text())
        assert sum(report["probs"]) == pytest.approx(1)


@every_trainer
@pytest.mark.parametrize(
    ("configuration", "plans"), [("2d", toy.PLANS), ("3d_fullres", toy.RESENC_PLANS)], ids=["2d", "residual"]
)
def test_one_step_on_other_networks_moves_what_is_trained(
    name: str, configuration: str, plans: str, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getattr(trainers, name), "from_checkpoint", False)
    trainer = toy.get_trainer(name, configuration, plans)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    before = {k: v.clone() for k, v in trainer.multitask_network.state_dict().items()}
    result = trainer.train_step(next(trainer.dataloader_train))
    assert np.isfinite(result["loss"])
    moved = {
        k
        for k, v in trainer.multitask_network.state_dict().items()
        if not torch.equal(v, before[k]) and not k.startswith("decoder.encoder")  # the decoder holds the encoder too
    }
    for part in ("encoder", "decoder", "cls_head"):
        trained = part not in trainer.frozen_parts
        assert any(k.startswith(part) for k in moved) == trained, part


@every_trainer
def test_loss_weight_scales_the_gradient_of_every_head(
    name: str, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getattr(trainers, name), "from_checkpoint", False)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, limit: torch.tensor(1.0))
    gradients = []
    for weight in ("0.3", "0.6"):
        monkeypatch.setenv("NNUNETV2_MT_LOSS_WEIGHT", weight)
        trainer = first_step(name)
        torch.manual_seed(0)  # dropout
        trainer.train_step(next(trainer.dataloader_train))
        gradients.append(list(trainer.multitask_network.cls_head.parameters())[-1].grad.clone())
    assert bool(gradients[0].any())
    torch.testing.assert_close(gradients[1], 2 * gradients[0], rtol=1e-4, atol=1e-6)


@every_trainer
def test_variables_of_the_class_loss_reach_it(name: str, nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getattr(trainers, name), "from_checkpoint", False)
    values = []
    for variables in ({}, {"LABEL_SMOOTHING": "0.5"}, {"FOCAL_GAMMA": "2"}, {"CLASS_WEIGHTS": "1,5,25"}):
        for variable, value in variables.items():
            monkeypatch.setenv(f"NNUNETV2_MT_{variable}", value)
        trainer = first_step(name)
        torch.manual_seed(0)
        batch = next(trainer.dataloader_train) | {"keys": toy.CASES[1:3]}  # two classes, so that weights matter
        values.append(trainer.train_step(batch)["cls_loss"])
        for variable in variables:
            monkeypatch.delenv(f"NNUNETV2_MT_{variable}")
    assert len({round(v, 6) for v in values}) == 4, values


# ---------------------------------------------------------------------- schedules


def rates(trainer: Any, epochs: int) -> list[list[float]]:
    """Each group's learning rate in every epoch, as nnU-Net's loop sets them."""
    found = []
    for epoch in range(epochs):
        trainer.lr_scheduler.step(epoch)
        found.append([group["lr"] for group in trainer.optimizer.param_groups])
    return found


def made(name: str, monkeypatch: pytest.MonkeyPatch, epochs: int = 20) -> Any:
    monkeypatch.setattr(getattr(trainers, name), "from_checkpoint", False)
    monkeypatch.setenv("NNUNETV2_MT_EPOCHS", str(epochs))
    trainer = toy.get_trainer(name)
    trainer.initialize()
    return trainer


def test_head_of_sumft_runs_at_ten_times_the_rate_at_every_epoch(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made("nnUNetTrainer_CLSHeadSumFT", monkeypatch)
    for epoch, (unet, head) in enumerate(rates(trainer, 20)):
        assert unet == pytest.approx(1e-3 * (1 - epoch / 20) ** 0.9)
        assert head == pytest.approx(10 * unet)


def test_sepopt_has_sgd_with_polynomial_and_adam_with_cosine(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made("nnUNetTrainer_CLSHeadSepOpt", monkeypatch)
    assert [type(o).__name__ for o in trainer.optimizer.optimizers] == ["SGD", "Adam"]
    for epoch, (unet, head) in enumerate(rates(trainer, 20)):
        assert unet == pytest.approx(1e-3 * (1 - epoch / 20) ** 0.9)
        assert head == pytest.approx(5e-3 * (1 + np.cos(np.pi * epoch / 20)) / 2)


def test_both_optimisers_of_sepopt_step_and_are_saved(nnunet: Path) -> None:
    trainer = first_step("nnUNetTrainer_CLSHeadSepOpt")
    unet, head = split_parameters(trainer.multitask_network)
    before = [unet[0].detach().clone(), head[-1].detach().clone()]
    trainer.train_step(next(trainer.dataloader_train))
    assert not torch.equal(unet[0], before[0]) and not torch.equal(head[-1], before[1])
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    sgd, adam = load(Path(trainer.output_folder) / "checkpoint_latest.pth")["optimizer_state"]["optimizers"]
    assert "momentum_buffer" in sgd["state"][0] and "exp_avg_sq" in adam["state"][0]


def test_class_loss_of_sepopt_leaves_the_network_alone(nnunet: Path) -> None:
    trainer = first_step("nnUNetTrainer_CLSHeadSepOpt")
    data = torch.as_tensor(next(trainer.dataloader_train)["data"])
    _, logits = trainer.network(data, return_cls=True)
    logits.square().sum().backward()
    unet, head = split_parameters(trainer.multitask_network)
    assert all(p.grad is None for p in unet)
    assert all(p.grad is not None for p in head)


def test_ma_runs_radam_with_cosine_over_everything(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made("nnUNetTrainer_CLSHeadMA", monkeypatch)
    assert type(trainer.optimizer) is torch.optim.RAdam
    assert sum(p.numel() for g in trainer.optimizer.param_groups for p in g["params"]) == sum(
        p.numel() for p in trainer.network.parameters()
    )
    for epoch, (rate,) in enumerate(rates(trainer, 20)):
        assert rate == pytest.approx(1e-3 * (1 + np.cos(np.pi * epoch / 20)) / 2)


def test_loss_weight_warms_up_linearly(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNETV2_MT_LOSS_WEIGHT", "0.8")
    monkeypatch.setenv("NNUNETV2_MT_LOSS_WARMUP", "3")
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadSum")
    found = []
    for epoch in range(5):
        trainer.current_epoch = epoch
        found.append(trainer.loss_weight)
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_without_warm_up_the_loss_weight_is_full_from_the_start(nnunet: Path) -> None:
    assert toy.get_trainer("nnUNetTrainer_CLSHeadSum").loss_weight == 0.3


@pytest.mark.parametrize("name", ["nnUNetTrainer_CLSHeadSimple", "nnUNetTrainer_CLSHeadSepOpt"])
def test_variants_from_scratch_start_from_stage1_when_it_is_given(name: str, nnunet: Path, stage1: Path) -> None:
    trainer = toy.get_trainer(name)
    trainer.on_train_start()
    expected = torch.load(stage1, weights_only=False)["network_weights"]
    found = trainer.multitask_network.unet_state_dict()
    assert all(torch.equal(found[k], v) for k, v in expected.items())


def test_frozen_decoder_of_simple_ends_as_it_began(nnunet: Path, stage1: Path) -> None:
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadSimple")
    trainer.run_training()
    start = torch.load(stage1, weights_only=False)["network_weights"]
    final = load(Path(trainer.output_folder) / "checkpoint_final.pth")["network_weights"]
    decoder = {k for k in start if k.startswith("decoder") and not k.startswith("decoder.encoder")}
    assert all(torch.equal(final[k], start[k]) for k in decoder)
    assert any(not torch.equal(final[k], start[k]) for k in start if k.startswith("encoder"))
