"""What the variables for mirroring, patches on the target and the class gradient do to a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_3dct import Predictor
from nnunet_3dct.errors import CheckpointError, SettingsError
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.training.target_patches import Oversampling, TargetPatches, location_keys
from nnunet_3dct.upstream import LabelManager
from tests import toy

LESION, SUM = "nnUNetTrainer_CLSHeadLesion", "nnUNetTrainer_CLSHeadSum"
AXES, PATCHES = "NNUNETV2_MT_MIRROR_AXES", "NNUNETV2_MT_TARGET_PATCHES"
GRADIENT, WEIGHT = "NNUNETV2_MT_GRADIENT", "NNUNETV2_MT_LOSS_WEIGHT"


def train_one_iteration(name: str) -> Path:
    """Train one epoch of one iteration; returns the folder of the fold."""
    trainer = toy.get_trainer(name)
    trainer.num_epochs = trainer.num_iterations_per_epoch = 1
    trainer.run_training()
    return Path(trainer.output_folder)


# ---------------------------------------------------------------------- mirrored axes


@pytest.mark.parametrize("name", [toy.STAGE1, SUM])
@pytest.mark.parametrize(("axes", "expected"), [("2", (2,)), ("0,1", (0, 1)), ("none", None), ("", (0, 1, 2))])
def test_training_mirrors_the_axes_that_are_named_and_tells_prediction(
    name: str, axes: str, expected: tuple[int, ...] | None, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AXES, axes)
    trainer = toy.get_trainer(name)
    trainer.on_train_start()
    transforms = trainer.dataloader_train.data_loader.transforms.transforms
    mirrors = [t.allowed_axes for t in transforms if type(t).__name__ == "MirrorTransform"]
    assert [tuple(found) for found in mirrors] == ([expected] if expected else [])
    assert trainer.inference_allowed_mirroring_axes == expected


@pytest.mark.parametrize(("axes", "expected"), [("2", (2,)), ("none", None)])
def test_checkpoint_lets_stock_and_our_prediction_mirror_those_axes_alone(
    axes: str, expected: tuple[int, ...] | None, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AXES, axes)
    fold = train_one_iteration(SUM)
    monkeypatch.delenv(AXES)
    stock = nnUNetPredictor(device=torch.device("cpu"))
    stock.initialize_from_trained_model_folder(str(fold.parent), (0,), "checkpoint_final.pth")
    assert stock.allowed_mirroring_axes == expected
    assert stock.predict_sliding_window_return_logits(torch.zeros(1, 16, 16, 16)).shape == (3, 16, 16, 16)
    ours = Predictor(fold.parent, device="cpu", backend="torch", tta="full")
    prediction = ours(np.zeros(toy.SHAPE, np.float32), spacing=(1, 1, 1))
    assert list(prediction.class_file["produced_by"]["mirror_axes"]) == list(expected or ())


def test_stage_1_checkpoint_holds_the_axes_and_validation_mirrors_them(
    nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AXES, "none")
    fold = train_one_iteration(toy.STAGE1)
    content = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert content["inference_allowed_mirroring_axes"] is None
    toy.train(SUM)
    report = json.loads(
        (toy.trained_folder(nnunet, SUM) / "fold_0" / "validation" / "toy_006_classification.json").read_text()
    )
    assert report["produced_by"]["mirror_axes"] == [] and report["produced_by"]["passes_per_window"] == 1


@pytest.mark.parametrize("name", [toy.STAGE1, SUM])
@pytest.mark.parametrize(
    ("configuration", "axes", "words"),
    [
        ("2d", "0,2", "expected axes from 0 to 1, which 2d has, found 2"),
        ("3d_fullres", "0,0", "expected none or a comma list of the axes 0, 1 and 2, each once, found '0,0'"),
        ("3d_fullres", "3", "expected none or a comma list"),
    ],
)
def test_bad_axes_stop_before_any_work(
    name: str, configuration: str, axes: str, words: str, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AXES, axes)
    with pytest.raises(SettingsError) as caught:
        toy.get_trainer(name, configuration)
    assert AXES in str(caught.value) and words in str(caught.value)
    assert toy.folders_below(nnunet) == []


def test_two_axes_of_a_2d_configuration_are_fine(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AXES, "1")
    trainer = toy.get_trainer(toy.STAGE1, "2d")
    assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] == (1,)


# ---------------------------------------------------------------------- patches on the target


class Cases:
    """A dataset of one organ voxel and one lesion voxel a case."""

    identifiers = ("known", "unknown", "empty")

    def load_case(self, identifier: str) -> Any:
        lesion = [] if identifier == "empty" else [[0, 5, 5, 5]]
        return "data", "seg", None, {"class_locations": {1: [[0, 2, 2, 2]], 2: lesion, (-1, 1, 2): [[0, 0, 0, 0]]}}


def locations(identifier: str, share: float) -> list[dict[Any, Any]]:
    np.random.seed(0)
    dataset = TargetPatches(Cases(), ["known", "empty"], {2}, Oversampling(share, 0.33))
    return [dataset.load_case(identifier)[3]["class_locations"] for _ in range(2000)]


def test_all_centres_of_a_known_case_lie_on_the_target_where_all_patches_have_to() -> None:
    found = locations("known", 1.0)
    assert all(not case[1] and case[2] == [[0, 5, 5, 5]] and case[(-1, 1, 2)] for case in found)


@pytest.mark.parametrize("identifier", ["unknown", "empty"])
def test_case_without_class_or_without_target_keeps_all_its_foreground(identifier: str) -> None:
    assert all(len(case[1]) == 1 for case in locations(identifier, 1.0))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_shares_add_up(share: float) -> None:
    on_target = np.mean([not case[1] for case in locations("known", share)])
    forced = Oversampling(share, 0.33).forced
    assert on_target * forced == pytest.approx(share, abs=0.03)  # the loader centres the share `forced`
    assert (1 - on_target) * forced == pytest.approx((1 - share) * 0.33, abs=0.03)  # the rest as nnU-Net does it


def label_manager(labels: dict[str, Any], order: list[int] | None = None) -> LabelManager:
    return LabelManager(labels, regions_class_order=order)


def test_keys_of_target_are_labels_or_the_regions_within_it() -> None:
    plain = label_manager({"background": 0, "organ": 1, "lesion": 2})
    assert location_keys(TargetLabels(plain, ["lesion"]), plain) == {2}
    regions = label_manager({"background": 0, "whole": [1, 2, 3], "lesion": [2, 3], "core": 3}, [1, 2, 3])
    assert location_keys(TargetLabels(regions, ["lesion"]), regions) == {(2, 3), 3}


def centres(trainer: Any, batches: int) -> tuple[list[str], list[list[int]]]:
    """Case and label at the middle of patches as the loader cuts them, before augmentation."""
    loader = trainer.dataloader_train.data_loader
    loader.transforms = None
    cases, middles = [], []
    for _ in range(batches):
        batch = loader.generate_train_batch()
        cases += [str(key) for key in batch["keys"]]
        middles += [int(seg[0][tuple(n // 2 for n in seg[0].shape)]) for seg in batch["target"]]
    return cases, middles


@pytest.mark.parametrize("share", ["1", "0.5"])
def test_patches_of_a_training_are_centred_on_the_lesion(
    share: str, nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.use_labels(monkeypatch, toy_root, tmp_path / "preprocessed", {**toy.CLASSES, "toy_000": -1})
    monkeypatch.setenv(PATCHES, share)
    monkeypatch.setenv("NNUNETV2_MT_TARGET_LABELS", "lesion")
    monkeypatch.setenv("NNUNETV2_MT_SAMPLER", "balanced")
    trainer = toy.get_trainer(SUM)
    trainer.on_train_start()
    cases, labels = centres(trainer, 150)
    known = [label for case, label in zip(cases, labels, strict=True) if case != "toy_000"]
    unknown = [label for case, label in zip(cases, labels, strict=True) if case == "toy_000"]
    assert unknown and known
    on_target = np.mean([label == 2 for label in known])
    if share == "1":
        assert on_target == 1.0
        assert 0.3 < np.mean([label == 2 for label in unknown]) < 0.8  # organ and lesion alike
    else:
        assert 0.55 < on_target < 0.75  # a half, and of the rest some by chance
    classes = [toy.CLASSES[case] for case in cases if case != "toy_000"]
    assert min(classes.count(k) for k in range(3)) > 0.2 * len(classes)


def test_without_the_setting_nnunets_own_loader_is_left_alone(nnunet: Path) -> None:
    trainer = toy.get_trainer(SUM)
    trainer.on_train_start()
    loader = trainer.dataloader_train.data_loader
    assert (trainer.oversample_foreground_percent, trainer.probabilistic_oversampling) == (0.33, False)
    assert not isinstance(loader._data, TargetPatches)


# ---------------------------------------------------------------------- the class gradient and its weight


@pytest.mark.parametrize(
    ("name", "gradient", "weight", "expected"),
    [
        (LESION, "", "", 0.3),
        (LESION, "0", "", 0.3),
        (LESION, "0.5", "", 0.1),
        (LESION, "1", "", 0.1),
        (LESION, "1", "0.3", 0.3),
        (LESION, "", "0.7", 0.7),
        (SUM, "", "", 0.3),
        (SUM, "", "0", 0.0),
    ],
)
def test_weight_of_the_class_loss(
    name: str, gradient: str, weight: str, expected: float, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GRADIENT, gradient)
    monkeypatch.setenv(WEIGHT, weight)
    trainer = toy.get_trainer(name)
    assert trainer.loss_weight == expected
    assert trainer.settings_in_force()[WEIGHT] == expected


def test_share_of_the_gradient_scales_what_the_network_learns_from_the_class(
    nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, limit: torch.tensor(1.0))
    monkeypatch.setenv(WEIGHT, "0.3")
    monkeypatch.setenv("NNUNETV2_MT_TARGET_PATCHES", "1")
    found = {}
    for gradient in ("0", "0.5", "1"):
        monkeypatch.setenv(GRADIENT, gradient)
        trainer = toy.get_trainer(LESION)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        trainer.loss = lambda output, target: output[0].sum() * 0  # the class alone
        trainer.train_step(next(trainer.dataloader_train))
        network = trainer.multitask_network
        assert network.cls_head.gradient == float(gradient)
        found[gradient] = network.encoder.stages[0][0].convs[0].conv.weight.grad.clone()
    assert not bool(found["0"].any()) and bool(found["1"].any())
    torch.testing.assert_close(found["0.5"], found["1"] / 2)


def test_gradient_is_written_into_the_checkpoint_and_another_one_is_refused(
    nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GRADIENT, "0.5")
    fold = train_one_iteration(LESION)
    content = torch.load(fold / "checkpoint_final.pth", weights_only=True)
    assert content["cls_head_config"]["options"]["gradient"] == 0.5
    assert content["mt_settings"][GRADIENT] == 0.5 and content["mt_loss_weight"] == 0.1
    monkeypatch.setenv("NNUNETV2_MT_EPOCHS", "1")
    monkeypatch.setenv("NNUNETV2_MT_ITERS_PER_EPOCH", "1")
    for other, shown in (("", None), ("1", f"{GRADIENT}: expected 0.5, found 1.0")):
        monkeypatch.setenv(GRADIENT, other)
        resumed = toy.get_trainer(LESION, resume=True)
        if shown is None:  # unset: the checkpoint's own
            resumed.on_train_start()
            continue
        with pytest.raises(CheckpointError, match=shown):
            resumed.on_train_start()


@pytest.mark.parametrize(
    ("name", "value", "began"),
    [("NNUNETV2_MT_MIRROR_AXES", "0", "0,1,2"), ("NNUNETV2_MT_TARGET_PATCHES", "0.5", "0.0")],
)
def test_going_on_with_other_patches_is_refused(
    name: str, value: str, began: str, nnunet: Path, trained_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.copy_model(toy.trained_folder(trained_results, toy.FINE_TUNING), nnunet)
    monkeypatch.setenv(name, value)
    with pytest.raises(CheckpointError, match=f"{name}: expected {began}, found {value}"):
        toy.get_trainer(toy.FINE_TUNING, resume=True).on_train_start()


def test_trainer_whose_head_has_no_such_option_refuses_the_gradient(
    nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GRADIENT, "1")
    with pytest.raises(SettingsError, match=rf"{GRADIENT}=1\.0: expected a trainer whose head.*found {SUM}"):
        toy.get_trainer(SUM)
    assert toy.folders_below(nnunet) == []
    toy.get_trainer(toy.STAGE1)  # has no class at all: variables of stage 2 may be set already
