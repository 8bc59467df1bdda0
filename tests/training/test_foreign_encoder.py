"""Trainings that start from the encoder of another dataset, in the formats in which it is passed around."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.checkpoint_values import started_from
from tests import toy
from tests.networks.test_matching import build

PRE = "NNUNETV2_PRE_CHECKPOINT_PATH"
STEM = "encoder.stages.0.0.convs.0.conv.weight"
LESION = "nnUNetTrainer_CLSHeadLesion"


@pytest.fixture
def organs(toy_root: Path, tmp_path: Path) -> Path:
    """A folder of a model as TotalSegmentator ships them: 25 labels, here of two channels."""
    dataset_name = "Dataset291_TotalSegmentator_part1_organs_1559subj"
    folder = tmp_path / dataset_name / "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    plans = json.loads((toy_root / "preprocessed" / toy.DATASET / f"{toy.PLANS}.json").read_text())
    plans["dataset_name"] = dataset_name
    dataset = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {str(n): n for n in range(25)}}
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    content = {
        "network_weights": build(toy_root, channels=2, labels=25, seed=5).state_dict(),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float32(0.9), np.float64(0.91)]},
        "_best_ema": np.float64(0.9),
        "current_epoch": 8000,
        "init_args": {
            "plans": plans,
            "configuration": "3d_fullres",
            "fold": 0,
            "dataset_json": dataset,
            "unpack_dataset": True,
            "device": torch.device("cuda"),
        },
        "trainer_name": "nnUNetTrainerNoMirroring",
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def started(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """A trainer that has begun, and its log."""
    monkeypatch.setenv(PRE, str(path))
    trainer = toy.get_trainer(name)
    trainer.on_train_start()
    return trainer, Path(trainer.log_file).read_text()


def assert_loaded(trainer: Any, source: dict[str, torch.Tensor], but: set[str]) -> None:
    """All weights are those of the source, except those that do not fit."""
    for name, value in trainer.multitask_network.named_parameters():
        if name.startswith("cls_head."):
            continue
        assert (name in but) != (source[name].shape == value.shape and torch.equal(source[name], value)), name


SEGMENTATION = {f"decoder.seg_layers.{n}.{part}" for n in range(2) for part in ("weight", "bias")}


@pytest.mark.parametrize("given", ["folder", "fold", "file"])
@pytest.mark.parametrize("name", [toy.FINE_TUNING, LESION])
def test_start_from_totalsegmentators_folder(
    name: str, given: str, nnunet: Path, organs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = organs / "fold_0" / "checkpoint_final.pth"
    path = {"folder": organs, "fold": organs / "fold_0", "file": file}[given]
    trainer, log = started(name, path, monkeypatch)
    source = torch.load(file, weights_only=False)["network_weights"]
    assert_loaded(trainer, source, {STEM, *SEGMENTATION})
    assert f"Starting from {file} (epoch 8000)." in log
    assert f"It was trained on {organs.parent.name}." in log and "seen validation cases" not in log
    assert f"{STEM}: expected shape (4, 1, 3, 3, 3), found (4, 2, 3, 3, 3)" in log
    assert all(f"{layer}: expected shape" in log for layer in SEGMENTATION)
    assert log.isascii()


def test_it_trains_and_the_checkpoint_says_what_was_left_out(
    nnunet: Path, organs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PRE, str(organs))
    monkeypatch.setenv("NNUNETV2_MT_ITERS_PER_EPOCH", "1")
    trainer = toy.get_trainer(toy.FINE_TUNING)
    trainer.run_training()
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    noted = torch.load(final, weights_only=True)["mt_started_from"]
    assert noted["path"] == str(organs / "fold_0" / "checkpoint_final.pth")
    assert (noted["fold"], noted["dataset"]) == (0, organs.parent.name)
    assert set(noted["left_out"]) == {STEM, *SEGMENTATION}
    assert started_from(final) == noted
    shutil.rmtree(organs)
    monkeypatch.delenv(PRE)
    assert toy.get_trainer(toy.FINE_TUNING, resume=True).started_from == noted  # kept where training goes on


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_start_from_a_state_dict(
    key: str | None, prefix: str, nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = build(toy_root, labels=7, seed=5).state_dict()
    named = {prefix + name: value for name, value in state.items()}
    torch.save(named if key is None else {key: named}, tmp_path / "unet.pth")
    trainer, log = started(toy.FINE_TUNING, tmp_path / "unet.pth", monkeypatch)
    assert_loaded(trainer, state, SEGMENTATION)
    assert "(epoch unknown)" in log and STEM not in log and "100% of the encoder's weights fit" in log


def test_checkpoint_of_the_same_network_starts_as_before(
    nnunet: Path, trained_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage1 = toy.trained_folder(trained_results, toy.STAGE1) / "fold_0" / "checkpoint_final.pth"
    trainer, log = started(toy.FINE_TUNING, stage1, monkeypatch)
    assert_loaded(trainer, torch.load(stage1, weights_only=False)["network_weights"], set())
    assert f"Starting from {stage1} (epoch 2)." in log
    assert "Left out" not in log and "fit" not in log and "It was trained on" not in log
    assert trainer.started_from == {"path": str(stage1), "fold": 0}


def test_stage_2_checkpoint_of_other_classes_and_labels_gives_its_encoder_alone(
    nnunet: Path, toy_root: Path, trained_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = toy.trained_folder(trained_results, toy.FINE_TUNING) / "fold_0" / "checkpoint_final.pth"
    content = torch.load(source, weights_only=True)
    content["network_weights"] = build(toy_root, labels=9, seed=5).state_dict()
    content["cls_head_config"]["num_classes"] = 5
    content["init_args"]["plans"]["dataset_name"] = "Dataset500_Other"
    torch.save(content, tmp_path / "other.pth")
    trainer, log = started(toy.FINE_TUNING, tmp_path / "other.pth", monkeypatch)
    assert_loaded(trainer, content["network_weights"], SEGMENTATION)
    head = trainer.multitask_network.cls_head
    assert head.num_classes == 3 and not torch.equal(head.final_fc.weight, content["cls_head_state"]["final_fc.weight"])
    assert "Its class head is left out" in log


@pytest.mark.parametrize(("name", "warned"), [("nnUNetTrainer_CLSHeadSimple", True), (LESION, False)])
def test_decoder_that_is_not_trained_and_lacks_layers_is_warned_of(
    name: str, warned: bool, nnunet: Path, organs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, log = started(name, organs, monkeypatch)
    assert ("decoder is not trained by this trainer, and 4 of its parameters" in log) == warned


def test_encoder_of_another_width_is_refused_before_any_work(
    nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = {}
    for name, value in build(toy_root).state_dict().items():
        wider[name] = value.repeat(2, *[1] * (value.ndim - 1)) if "stages.2" in name else value
    torch.save(wider, tmp_path / "wider.pth")
    monkeypatch.setenv(PRE, str(tmp_path / "wider.pth"))
    with pytest.raises(CheckpointError, match=r"belongs to another network: .*of the encoder's weights fit") as caught:
        toy.get_trainer(toy.FINE_TUNING)
    assert "encoder.stages.2" in str(caught.value)
    assert toy.folders_below(nnunet) == []


def test_folder_without_a_model_is_named_before_any_work(
    nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(PRE, str(tmp_path / "empty"))
    with pytest.raises(CheckpointError, match=r"empty: expected a trained model of nnU-Net.*found nothing"):
        toy.get_trainer(toy.FINE_TUNING)
    assert toy.folders_below(nnunet) == []
