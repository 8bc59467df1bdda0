"""Training as ``nnUNetv2_train`` runs it, on toy volumes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from sklearn.metrics import confusion_matrix

from nnunet_3dct.formats.checkpoint import read_checkpoint
from nnunet_3dct.training import fit_head
from nnunet_3dct.training.class_score import ClassScore
from nnunet_3dct.training.resuming import best_class_score
from tests import toy


def load(path: Path) -> dict[str, Any]:
    """As a careful user reads a checkpoint: no code in the file is run, nothing allowed by hand."""
    return torch.load(path, map_location="cpu", weights_only=True)


def states_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture
def fold(trained_results: Path) -> Path:
    """Fold folder of the fine-tuned model; read only."""
    return toy.trained_folder(trained_results, toy.FINE_TUNING) / "fold_0"


@pytest.fixture
def stage1(trained_results: Path) -> Path:
    return toy.trained_folder(trained_results, toy.STAGE1) / "fold_0" / "checkpoint_best.pth"


# ---------------------------------------------------------------------- what a training leaves


@pytest.mark.parametrize("name", ["best", "cls_best", "latest", "final"])
def test_checkpoint_holds_stock_network_and_head_as_plain_values(fold: Path, name: str) -> None:
    checkpoint = load(fold / f"checkpoint_{name}.pth")
    plans = PlansManager(json.loads((fold / "plans.json").read_text()))
    network = nnUNetTrainer.build_network_architecture(plans, plans.get_configuration("3d_fullres"), 1, 3)
    network.load_state_dict(checkpoint["network_weights"], strict=True)
    assert checkpoint["cls_head_config"] == {
        "name": "grid",
        "num_classes": 3,
        "options": {"grid": 4, "standardize": True},
        "class_names": toy.CLASS_NAMES,
        "target_labels": [1, 2],
    }
    assert (checkpoint["mt_num_classes"], checkpoint["mt_loss_weight"]) == (3, 0.3)
    assert checkpoint["trainer_name"] == toy.FINE_TUNING
    assert all(bool(torch.isfinite(v).all()) for v in checkpoint["cls_head_state"].values())


def test_fine_tuning_changed_network_and_head(fold: Path, stage1: Path) -> None:
    final = load(fold / "checkpoint_final.pth")
    start = torch.load(stage1, weights_only=False)["network_weights"]
    assert final["network_weights"].keys() == start.keys()
    assert not states_equal(final["network_weights"], start)


def test_head_ran_at_ten_times_the_rate_in_the_last_epoch_too(fold: Path) -> None:
    unet, head = (group["lr"] for group in load(fold / "checkpoint_final.pth")["optimizer_state"]["param_groups"])
    assert unet == pytest.approx(1e-3 * 0.5**0.9)
    assert head == pytest.approx(10 * unet)


def test_log_has_one_value_an_epoch_for_both_tasks(fold: Path) -> None:
    log = load(fold / "checkpoint_final.pth")["logging"]
    assert {name: len(values) for name, values in log.items()} == dict.fromkeys(log, 2)
    for name in (
        "train_losses",
        "ema_fg_dice",
        "cls_train_losses",
        "cls_val_losses",
        "cls_f1_macro",
        "cls_accuracy",
    ):
        assert np.isfinite(log[name]).all(), name
    assert log["skipped_steps"] == [0, 0]


def test_fold_folder_has_progress_and_plans(fold: Path) -> None:
    assert (fold / "progress.png").read_bytes().startswith(b"\x89PNG")
    for name in ("plans.json", "dataset.json"):
        assert json.loads((fold / name).read_text()) == json.loads((fold.parent / name).read_text())
    assert list(fold.glob(".*")) == []


def test_validation_folder_has_both_tasks_of_every_case(fold: Path) -> None:
    validation = fold / "validation"
    summary = json.loads((validation / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 3
    predicted = []
    for case in toy.VALIDATION:
        assert (validation / f"{case}.nii.gz").is_file()
        probabilities = np.load(validation / f"{case}.npz")["probabilities"]
        assert probabilities.shape == (3, *toy.SHAPE)
        report = json.loads((validation / f"{case}_classification.json").read_text())
        np.testing.assert_allclose(torch.tensor(report["logits"]).softmax(0), report["probs"], atol=1e-6)
        assert report["pred"] == int(np.argmax(report["probs"]))
        assert (report["num_classes"], report["class_names"]) == (3, toy.CLASS_NAMES)
        assert (report["produced_by"]["windows"], report["produced_by"]["passes_per_window"]) == (4, 8)
        predicted.append(report["pred"])
    with (validation / "subtype_results.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows == [["Names", "Subtype"]] + [
        [f"{case}.nii.gz", str(pred)] for case, pred in zip(toy.VALIDATION, predicted, strict=True)
    ]
    metrics = json.loads((validation / "classification_metrics.json").read_text())
    truth = [toy.CLASSES[case] for case in toy.VALIDATION]
    assert metrics["n_samples"] == 3
    assert metrics["confusion_matrix"] == confusion_matrix(truth, predicted, labels=[0, 1, 2]).tolist()


# ---------------------------------------------------------------------- validating and resuming


def test_validation_alone_needs_no_stage1_checkpoint_and_may_use_the_best(fold: Path, nnunet: Path) -> None:
    copy = toy.copy_model(fold.parent, nnunet) / "fold_0"
    first = load(copy / "checkpoint_best.pth")
    with torch.no_grad():
        first["cls_head_state"]["final_fc.bias"] += torch.tensor([0.0, 0.0, 50.0])
    torch.save(first, copy / "checkpoint_best.pth")
    toy.train(toy.FINE_TUNING, only_run_validation=True, val_with_best=True)
    for case in toy.VALIDATION:
        report = json.loads((copy / "validation" / f"{case}_classification.json").read_text())
        assert report["pred"] == 2 and report["probs"][2] > 0.999  # so it is checkpoint_best that was read
    assert (copy / "validation" / "classification_metrics.json").is_file()


@pytest.mark.parametrize("checkpoint", ["latest", "best"])
def test_resumed_training_reaches_the_weights_of_an_unbroken_one(
    checkpoint: str, fold: Path, stage1: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(stage1))
    interrupted = toy.get_trainer(toy.FINE_TUNING)
    interrupted.save_every = 1

    start_epoch = interrupted.on_epoch_start

    def stop_at_the_second() -> None:
        if interrupted.current_epoch == 1:
            raise KeyboardInterrupt
        start_epoch()

    monkeypatch.setattr(interrupted, "on_epoch_start", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run_training()
    folder = Path(interrupted.output_folder)
    assert not (folder / "checkpoint_final.pth").exists()
    if checkpoint == "best":
        (folder / "checkpoint_latest.pth").unlink()

    monkeypatch.delenv("NNUNETV2_PRE_CHECKPOINT_PATH")
    resumed = toy.get_trainer(toy.FINE_TUNING, resume=True)
    assert resumed.current_epoch == 1
    resumed.run_training()
    found, expected = load(folder / "checkpoint_final.pth"), load(fold / "checkpoint_final.pth")
    for part in ("network_weights", "cls_head_state"):
        assert states_equal(found[part], expected[part]), part
    for name in ("train_losses", "cls_train_losses", "cls_val_losses", "ema_fg_dice", "skipped_steps"):
        assert found["logging"][name] == expected["logging"][name], name
    assert found["mt_best_cls"] == expected["mt_best_cls"]


def test_another_seed_gives_other_weights(
    fold: Path, stage1: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(stage1))
    monkeypatch.setenv("NNUNETV2_MT_SEED", "4")
    trainer = toy.get_trainer(toy.FINE_TUNING)
    trainer.run_training()
    found = load(Path(trainer.output_folder) / "checkpoint_final.pth")
    assert not states_equal(found["network_weights"], load(fold / "checkpoint_final.pth")["network_weights"])


def test_resumed_training_does_not_overwrite_a_better_best_checkpoint(
    fold: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = toy.copy_model(fold.parent, nnunet) / "fold_0"
    latest, best = load(copy / "checkpoint_final.pth"), load(copy / "checkpoint_cls_best.pth")
    latest |= {"current_epoch": 1, "mt_best_cls": {**latest["mt_best_cls"], "macro_f1": 0.0}}
    latest["logging"] = {name: values[:1] for name, values in latest["logging"].items()}
    best["mt_best_cls"] = {**best["mt_best_cls"], "macro_f1": 1.0, "log_loss": 0.0}
    (copy / "checkpoint_final.pth").unlink()
    torch.save(latest, copy / "checkpoint_latest.pth")
    torch.save(best, copy / "checkpoint_cls_best.pth")
    before = (copy / "checkpoint_cls_best.pth").read_bytes()
    resumed = toy.get_trainer(toy.FINE_TUNING, resume=True)
    resumed.run_training()
    assert (copy / "checkpoint_cls_best.pth").read_bytes() == before
    assert load(copy / "checkpoint_final.pth")["mt_best_cls"]["macro_f1"] == 1.0


@pytest.mark.parametrize("best", ["of other cases", "unreadable"])
def test_best_checkpoint_that_cannot_be_compared_does_not_count(
    best: str, fold: Path, nnunet: Path, tmp_path: Path
) -> None:
    other = load(fold / "checkpoint_cls_best.pth")
    other["mt_labels"] = {"training": {"a": 0}, "validation": {"b": 1}}
    other["mt_best_cls"]["macro_f1"] = 1.0
    torch.save(other, tmp_path / "checkpoint_cls_best.pth")
    if best == "unreadable":
        (tmp_path / "checkpoint_cls_best.pth").write_bytes(b"PK")
    resumed = read_checkpoint(fold / "checkpoint_final.pth")
    assert best_class_score(resumed, tmp_path) == ClassScore(**resumed["mt_best_cls"])


def test_head_of_a_stage2_checkpoint_is_the_start_of_fine_tuning_again(
    fold: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(fold / "checkpoint_final.pth"))
    trainer = toy.get_trainer(toy.FINE_TUNING)
    trainer.on_train_start()
    expected = load(fold / "checkpoint_final.pth")
    assert states_equal(trainer.multitask_network.unet_state_dict(), expected["network_weights"])
    assert states_equal(trainer.multitask_network.cls_head.state_dict(), expected["cls_head_state"])


# ---------------------------------------------------------------------- other networks and labels


def run_one_iteration(trainer: Any) -> Any:
    """Train one epoch of one iteration; returns the trainer."""
    trainer.num_epochs = trainer.num_iterations_per_epoch = 1
    trainer.run_training()
    return trainer


@pytest.mark.parametrize(
    ("configuration", "plans", "unet"),
    [("2d", toy.PLANS, "PlainConvUNet"), ("3d_fullres", toy.RESENC_PLANS, "ResidualEncoderUNet")],
)
def test_other_networks_train_from_scratch(nnunet: Path, configuration: str, plans: str, unet: str) -> None:
    trainer = run_one_iteration(toy.get_trainer("nnUNetTrainer_CLSHeadSum", configuration, plans))
    assert trainer.configuration_manager.network_arch_class_name.endswith(unet)
    checkpoint = load(Path(trainer.output_folder) / "checkpoint_final.pth")
    assert np.isfinite(checkpoint["logging"]["cls_train_losses"]).all()
    assert np.isfinite(checkpoint["logging"]["cls_val_losses"]).all()
    stock = nnUNetTrainer.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, 3)
    stock.load_state_dict(checkpoint["network_weights"], strict=True)


def test_regions_train_and_the_target_may_be_one_of_them(
    toy_root: Path, nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = json.loads((toy_root / "preprocessed" / toy.DATASET / "dataset.json").read_text())
    dataset |= {"labels": {"background": 0, "whole": [1, 2], "lesion": 2}, "regions_class_order": [1, 2]}
    changed = toy.with_changed_files(toy_root / "preprocessed", tmp_path / "preprocessed", dataset=dataset)
    monkeypatch.setenv("nnUNet_preprocessed", str(changed))
    monkeypatch.setenv("NNUNETV2_MT_TARGET_LABELS", "lesion")
    trainer = run_one_iteration(toy.get_trainer("nnUNetTrainer_CLSHeadSum"))
    assert trainer.label_manager.has_regions
    checkpoint = load(Path(trainer.output_folder) / "checkpoint_final.pth")
    assert checkpoint["cls_head_config"]["target_labels"] == [2]
    assert np.isfinite(checkpoint["logging"]["train_losses"]).all()


def get_datasets(trainer: Any) -> tuple[Any, Any, str]:
    """Training and validation data of a trainer, and its log."""
    trainer.initialize()
    training, validation = trainer.get_tr_and_val_datasets()
    return training, validation, Path(trainer.log_file).read_text()


@pytest.fixture
def uneven_fold(nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Labels of a dataset whose training cases are of the classes 0, 1, 2, unknown, 2."""
    splits = [{"train": [c for c in toy.TRAINING if c != "toy_003"], "val": toy.VALIDATION}]
    labels = {**toy.CLASSES, "toy_004": -1}
    toy.use_labels(monkeypatch, toy_root, tmp_path / "preprocessed", labels, splits_final=splits)
    return labels


def test_balanced_weights_come_from_the_training_fold(uneven_fold: dict[str, int]) -> None:
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadLesion")
    training, validation, log = get_datasets(trainer)
    assert trainer.class_weight.tolist() == pytest.approx([4 / 3, 4 / 3, 2 / 3])
    assert sorted(training.identifiers) == sorted(c for c in toy.TRAINING if c != "toy_003")
    assert sorted(validation.identifiers) == toy.VALIDATION
    assert "class weights: balanced, lambda = 0.3" in log


def test_balanced_sampler_replaces_the_weights_of_the_trainer_but_not_those_of_the_last_fit(
    uneven_fold: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNETV2_MT_SAMPLER", "balanced")
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadLesion")
    training, _, log = get_datasets(trainer)
    seen = [uneven_fold[case] for case in training.identifiers]
    assert seen.count(0) == seen.count(1) == seen.count(2) > 0
    assert trainer.class_weight is None
    assert "none in place of the trainer's balanced ones, since the sampler is balanced" in log
    fitted: list[Any] = []

    def refit(head: Any, columns: Any, known: Any, weights: Any, gather: Any) -> fit_head.Refit:
        fitted.append(weights)
        return fit_head.Refit("watched")

    monkeypatch.setattr(fit_head, "refit", refit)
    trainer.fit_head_to_volumes()
    assert fitted == ["balanced"]  # of whole volumes each counts once, whatever the sampler does
    assert trainer.settings_in_force()["NNUNETV2_MT_CLASS_WEIGHTS"] == "none"


def test_weights_asked_for_beside_the_balanced_sampler_are_used_and_warned_of(
    uneven_fold: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNETV2_MT_SAMPLER", "balanced")
    monkeypatch.setenv("NNUNETV2_MT_CLASS_WEIGHTS", "balanced")
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadSum")
    *_, log = get_datasets(trainer)
    assert trainer.class_weight.tolist() == pytest.approx([4 / 3, 4 / 3, 2 / 3])
    assert "WARNING: NNUNETV2_MT_SAMPLER=balanced" in log and "count twice" in log


def test_no_weights_and_a_balanced_sampler_need_no_word(
    uneven_fold: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNETV2_MT_SAMPLER", "balanced")
    monkeypatch.setenv("NNUNETV2_MT_CLASS_WEIGHTS", "none")
    *_, log = get_datasets(toy.get_trainer("nnUNetTrainer_CLSHeadLesion"))
    assert "WARNING" not in log and "in place of" not in log


def test_loss_weight_scales_the_gradient_of_the_head(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, limit: torch.tensor(1.0))
    gradients = []
    for weight in ("0.3", "0.6", "0"):
        monkeypatch.setenv("NNUNETV2_MT_LOSS_WEIGHT", weight)
        trainer = toy.get_trainer("nnUNetTrainer_CLSHeadSum")
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        trainer.train_step(next(trainer.dataloader_train))
        gradients.append(trainer.multitask_network.cls_head.final_fc.bias.grad.clone())
    assert bool(gradients[0].any())
    torch.testing.assert_close(gradients[1], 2 * gradients[0])
    assert not bool(gradients[2].any())
