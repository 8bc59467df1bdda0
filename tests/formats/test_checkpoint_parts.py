"""What a checkpoint says of its head and its U-Net, the seed's format included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.checkpoint import (
    HEAD_CONFIG,
    HEAD_STATE,
    check_unet_fits,
    compose_checkpoint,
    head_config,
    read_checkpoint,
    write_checkpoint,
)
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import build_head
from tests.formats.test_checkpoint import stock_checkpoint

SEED_CHANNELS = (320, 320, 256, 128, 64, 32)  # bottleneck, then the decoder from coarse to fine


def seed_head_state(num_classes: int = 3) -> dict[str, torch.Tensor]:
    """Parameters under the published names, random."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for i, channels in enumerate(SEED_CHANNELS):
        for layer, inputs, outputs in ((0, channels * 64, channels // 2), (2, channels // 2, num_classes)):
            state[f"mlp_layers.{i}.{layer}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs
            state[f"mlp_layers.{i}.{layer}.bias"] = torch.randn(outputs, generator=generator)
    state["final_fc.weight"] = torch.randn(num_classes, 6 * num_classes, generator=generator)
    state["final_fc.bias"] = torch.randn(num_classes, generator=generator)
    return state


def test_published_stage_2_checkpoint_gives_the_grid_head(tmp_path):
    torch.save({**stock_checkpoint(), HEAD_STATE: seed_head_state()}, tmp_path / "seed.pth")
    checkpoint = read_checkpoint(tmp_path / "seed.pth")
    config = head_config(checkpoint, "seed.pth")
    assert (config["name"], config["num_classes"], config["options"]) == ("grid", 3, {})

    encoder = tuple(reversed(SEED_CHANNELS[1:]))
    spec = FeatureSpec((*encoder, SEED_CHANNELS[0]), SEED_CHANNELS[1:], 3)
    head = build_head(config["name"], spec, config["num_classes"], **config["options"])
    head.load_state_dict(checkpoint[HEAD_STATE], strict=True)

    state = seed_head_state()
    generator = torch.Generator().manual_seed(1)
    scales = [torch.randn(2, channels, 5, 4, 6, generator=generator) for channels in SEED_CHANNELS]
    votes = []
    for i, scale in enumerate(scales):
        x = functional.adaptive_max_pool3d(scale, 4).flatten(1)
        x = functional.linear(x, state[f"mlp_layers.{i}.0.weight"], state[f"mlp_layers.{i}.0.bias"]).relu()
        votes.append(functional.linear(x, state[f"mlp_layers.{i}.2.weight"], state[f"mlp_layers.{i}.2.bias"]))
    expected = functional.linear(torch.cat(votes, 1), state["final_fc.weight"], state["final_fc.bias"])
    with torch.no_grad():
        found = head(UNetFeatures([scales[0]], scales[1:], torch.empty(0)))
    torch.testing.assert_close(found, expected)


def test_stated_head_comes_before_guessing():
    config = {"name": "other", "num_classes": 2, "options": {"width": 8}}
    checkpoint = {HEAD_STATE: seed_head_state(), HEAD_CONFIG: config}
    found = head_config(checkpoint, "x.pth")
    assert found == config
    found["name"] = "changed"
    assert config["name"] == "other"


def test_classes_are_counted_from_the_weights():
    assert head_config({HEAD_STATE: seed_head_state(5)}, "x.pth")["num_classes"] == 5


def test_checkpoint_without_a_head_is_named():
    with pytest.raises(CheckpointError, match=r"stage1\.pth: expected a classification head.*nnUNetv2_predict"):
        head_config(stock_checkpoint(), "stage1.pth")


def test_undescribed_head_of_another_kind_is_refused():
    with pytest.raises(CheckpointError, match=r"x\.pth: has no cls_head_config.*linear\.bias, linear\.weight"):
        head_config({HEAD_STATE: {"linear.weight": torch.ones(3, 2), "linear.bias": torch.ones(3)}}, "x.pth")


# the U-Net


def test_parameters_that_differ_are_named():
    expected = {"a": torch.ones(2, 3), "b": torch.ones(1), "c": torch.ones(1)}
    check_unet_fits(expected, dict(expected), "x.pth")
    with pytest.raises(CheckpointError) as caught:
        check_unet_fits(expected, {"a": torch.ones(2, 4), "c": torch.ones(1), "d": torch.ones(1)}, "x.pth")
    lines = str(caught.value).splitlines()
    assert "x.pth belongs to another network" in lines[0] and "3 parameters differ" in lines[0]
    assert [line.strip() for line in lines[1:]] == [
        "b: missing in the checkpoint",
        "d: only in the checkpoint",
        "a: expected shape (2, 3), found (2, 4)",
    ]


def test_parts_are_found_by_name_whatever_their_keys(tmp_path):
    run = {
        "mt_num_classes": 3,
        "mt_loss_weight": 0.3,
        "mt_settings": {"NNUNETV2_MT_LR": 0.1},
        "mt_labels": {"training": {"a": 0}, "validation": {"b": 2}},
        "mt_started_from": {"path": "stage1.pth", "fold": 1},
        "mt_best_cls": {"macro_f1": 0.5},
    }
    head = {"name": "grid", "num_classes": 3, "options": {}, "class_names": None, "target_labels": [2]}
    stock = stock_checkpoint()
    trainer = {key: value for key, value in stock.items() if key != "network_weights"}
    trainer |= {"init_args": {"fold": 0, "configuration": "2d"}, "logging": {"skipped_steps": [1, 4]}}
    content = compose_checkpoint(stock["network_weights"], seed_head_state(), head, trainer, run)  # type: ignore[arg-type]
    write_checkpoint(content, tmp_path / "ours.pth")
    found = read_checkpoint(tmp_path / "ours.pth")
    assert found.keys() == {*stock, *run, HEAD_STATE, HEAD_CONFIG}
    assert found.has_head and found.head_config == head
    assert found.unet_weights.keys() == stock["network_weights"].keys()
    assert found.head_weights.keys() == seed_head_state().keys()
    assert (found.trainer_name, found.configuration, found.fold, found.epoch) == ("nnUNetTrainer", "2d", 0, 3)
    assert (found.run_record["mt_settings"], found.labels, found.skipped_steps) == (
        run["mt_settings"],
        run["mt_labels"],
        4,
    )
    assert (found.started_from, found.best_class_score) == (run["mt_started_from"], run["mt_best_cls"])
    assert found.trainer_state["current_epoch"] == 3 and found.trainer_state["optimizer_state"]
    assert str(tmp_path / "ours.pth") == found.source and found.head_source == f"{found.source} (cls_head_state)"


def test_parts_that_a_checkpoint_lacks_are_empty(tmp_path):
    write_checkpoint({"network_weights": {}}, tmp_path / "bare.pth")
    found = read_checkpoint(tmp_path / "bare.pth")
    assert not found.has_head and found.trainer_name == ""
    assert (found.fold, found.epoch, found.started_from, found.best_class_score) == (None,) * 4
    assert (found.run_record["mt_settings"], found.labels, found.skipped_steps) == ({}, {}, 0)
