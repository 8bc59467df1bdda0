"""An encoder of another training as a frozen part of a head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.foreign_encoder import ForeignEncoder, open_encoder
from nnunet_3dct.networks.frozen_encoder import FrozenEncoder
from nnunet_3dct.networks.heads import build_head
from nnunet_3dct.networks.heads.case import CaseHead
from nnunet_3dct.networks.pooling import LEAST_VARIANCE
from tests import toy
from tests.networks import foreign
from tests.networks.test_matching import build

PATCH = (16, 16, 16)
SPEC = FeatureSpec((2, 3), (2,), 3)  # of the network whose head it is


def opened(
    path: Path, toy_root: Path, channels: int = 1, patch: tuple[int, ...] = PATCH, plans: str = toy.PLANS
) -> ForeignEncoder:
    """Opened for a model of the toy plans."""
    content = json.loads((toy_root / "preprocessed" / toy.DATASET / f"{plans}.json").read_text())
    own = PlansManager(content).get_configuration("3d_fullres" if len(patch) == 3 else "2d")
    return open_encoder(path, own, channels, patch)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def image(channels: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn((2, channels, *PATCH), generator=torch.Generator().manual_seed(seed))


def assert_same(encoder: FrozenEncoder, net: Any, x: torch.Tensor, seen: torch.Tensor | None = None) -> None:
    """Its stages on ``x`` are those of the network's own encoder on ``seen``."""
    with torch.no_grad():
        mine, theirs = encoder(x), net.encoder(x if seen is None else seen)
    assert len(mine) == len(theirs)
    for found, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", ["file", "folder", "fold", "old plans", "residual"])
def test_encoder_is_that_of_the_plans_in_its_checkpoint(form: str, toy_root: Path, tmp_path: Path) -> None:
    plans = foreign.plans(toy_root, toy.RESENC_PLANS if form == "residual" else toy.PLANS)
    if form == "old plans":
        plans = foreign.old_format(plans)
    path = tmp_path / "unet.pth"
    if form in ("folder", "fold"):
        path = foreign.results_folder(tmp_path, plans) / ("fold_0" if form == "fold" else "")
    else:
        saved(foreign.checkpoint(plans), path)
    encoder = opened(path, toy_root)
    assert_same(encoder.build(), foreign.network(plans), image())
    assert encoder.dataset == foreign.DATASET and f"trained on {foreign.DATASET}: 4 stages of" in encoder.notes[0]
    assert all(note.isascii() for note in encoder.notes)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_bare_state_dict_is_taken_for_the_network_of_the_own_plans(
    key: str | None, prefix: str, toy_root: Path, tmp_path: Path
) -> None:
    net = build(toy_root, labels=9, seed=3)
    state = {prefix + name: value for name, value in net.state_dict().items()}
    encoder = opened(saved(state if key is None else {key: state}, tmp_path / "x.pth"), toy_root)
    assert_same(encoder.build(), net, image())
    assert encoder.dataset is None


@pytest.mark.parametrize("kept", ["encoder.", "decoder.encoder.", None])
def test_encoder_alone_is_enough(kept: str | None, toy_root: Path, tmp_path: Path) -> None:
    net = build(toy_root, seed=3)
    state = net.encoder.state_dict() if kept is None else net.state_dict()
    state = {name: value for name, value in state.items() if kept is None or name.startswith(kept)}
    assert_same(opened(saved(state, tmp_path / "x.pth"), toy_root).build(), net, image())


def test_encoder_of_fewer_channels_sees_the_first_of_the_image(toy_root: Path, tmp_path: Path) -> None:
    plans = foreign.plans(toy_root)
    encoder = opened(saved(foreign.checkpoint(plans, channels=1), tmp_path / "x.pth"), toy_root, channels=3)
    x = image(3)
    assert_same(encoder.build(), foreign.network(plans, channels=1), x, x[:, :1])
    assert "trained on 1 image channel(s), here are 3: it sees the first of them alone" in encoder.notes[1]


def test_channels_that_the_image_lacks_count_as_zero_and_are_listed(toy_root: Path, tmp_path: Path) -> None:
    plans = foreign.plans(toy_root)
    encoder = opened(saved(foreign.checkpoint(plans, channels=3), tmp_path / "x.pth"), toy_root, channels=1)
    x = image()
    seen = torch.cat([x, torch.zeros(2, 2, *PATCH)], dim=1)
    assert_same(encoder.build(), foreign.network(plans, channels=3), x, seen)
    assert encoder.notes[1] == (
        "It was trained on 3 image channels, here are 1. Left out: stages.0.0.convs.0.conv.weight, weights of channels "
        "1 to 2."
    )


def test_stages_of_a_single_voxel_are_not_used(toy_root: Path, tmp_path: Path) -> None:
    path = saved(foreign.checkpoint(foreign.plans(toy_root)), tmp_path / "x.pth")
    encoder = opened(path, toy_root, patch=(2, 4, 4)).build()  # 1 x 1 x 1 in the third stage
    assert encoder.spec.encoder_channels == (3, 5)
    assert [tuple(stage.shape[2:]) for stage in encoder(torch.zeros(1, 1, 2, 4, 4))] == [(2, 4, 4), (2, 2, 2)]


def test_residual_encoder_takes_sizes_that_do_not_divide(toy_root: Path, tmp_path: Path) -> None:
    plans = foreign.plans(toy_root, toy.RESENC_PLANS)
    net, x = foreign.network(plans), torch.randn(1, 1, 11, 14, 13)
    with pytest.raises(RuntimeError):
        net.encoder(x)
    encoder = opened(saved(foreign.checkpoint(plans), tmp_path / "x.pth"), toy_root, patch=(11, 14, 13)).build()
    found = encoder(x)
    assert [tuple(stage.shape[2:]) for stage in found] == [(11, 14, 13), (11, 7, 7), (6, 4, 4), (3, 2, 2)]
    with torch.no_grad():
        torch.testing.assert_close(found[0], net.encoder.stages[0](net.encoder.stem(x)))
    assert all(bool(torch.isfinite(stage).all()) for stage in found)


def test_it_is_never_trained(toy_root: Path, tmp_path: Path) -> None:
    encoder = opened(saved(foreign.checkpoint(foreign.plans(toy_root)), tmp_path / "x.pth"), toy_root)
    head = case_head(encoder).train()
    assert head.encoder is not None and not head.encoder.training and not head.encoder.stages[0].training
    assert not any(parameter.requires_grad for parameter in head.encoder.parameters())
    assert head.classifier.weight.requires_grad


def case_head(encoder: ForeignEncoder, **options: Any) -> CaseHead:
    head = build_head("case", SPEC, 3, encoder=encoder.config, **options)
    assert isinstance(head, CaseHead)
    head.encoder = encoder.build()
    return head


def shown(x: torch.Tensor) -> UNetFeatures:
    """Features of the segmentation network: noise, which is not to be looked at, and a target in a corner."""
    logits = torch.full((len(x), 2, *PATCH), -2.0)
    logits[:, 0] = 2.0
    logits[:, 1, 3:9, 2:12, 5:11] = 3.0 + x[:, 0, 3:9, 2:12, 5:11]
    noise = [torch.randn(len(x), 2, *PATCH), torch.randn(len(x), 3, 8, 8, 8)]
    return UNetFeatures(noise, [torch.randn(len(x), 2, *PATCH)], logits, x)


def averaged(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Means of a volume over the cells of a grid, which need not divide it."""
    for axis, cells in enumerate(size):
        n = values.shape[axis]
        edges = [(i * n // cells, -(-(i + 1) * n // cells)) for i in range(cells)]
        values = np.stack([values.take(range(*edge), axis).mean(axis) for edge in edges], axis)
    return values


def pooled_by_hand(stages: list[torch.Tensor], logits: torch.Tensor, importance: np.ndarray) -> np.ndarray:
    """Of one window, in NumPy: mean and spread under the squared probability of the target, mean of the image."""
    odds = np.exp(logits.numpy().astype(float))
    weight = (odds[1] / odds.sum(0)) ** 2 * importance
    found: list[float] = []
    for stage in stages:
        values = stage.numpy().astype(float)
        under, of_image = (averaged(w, values.shape[1:]) for w in (weight, importance))
        means = [np.average(channel, weights=under) for channel in values]
        spreads = [
            np.sqrt(np.average((c - m) ** 2, weights=under) + LEAST_VARIANCE)
            for c, m in zip(values, means, strict=True)
        ]
        found += [*means, *spreads, *(np.average(channel, weights=of_image) for channel in values)]
    return np.array([*found, np.log2(weight.sum() + 1)])


@pytest.mark.parametrize("architecture", [toy.PLANS, toy.RESENC_PLANS])
def test_pooled_features_are_those_of_the_encoder_under_the_targets_outline(
    architecture: str, toy_root: Path, tmp_path: Path
) -> None:
    plans = foreign.plans(toy_root, architecture)
    head = case_head(opened(saved(foreign.checkpoint(plans), tmp_path / "x.pth"), toy_root))
    features = shown(image())
    importance = torch.rand((2, 1, *PATCH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        stages = foreign.network(plans).encoder(features.image)
        (found,) = head.summarize(features, importance)
    coarsest = (3, 2, 2) if architecture == toy.PLANS else (4, 2, 2)
    assert [tuple(stage.shape[2:]) for stage in stages] == [(16, 16, 16), (16, 8, 8), (8, 4, 4), coarsest]
    assert found.shape[1] == head.layout.network_width == 3 * sum(foreign.WIDTHS) + 1
    for n in range(2):
        expected = pooled_by_hand([stage[n] for stage in stages], features.logits[n], importance[n, 0].numpy())
        np.testing.assert_allclose(found[n].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_columns_are_named_by_the_stages_of_the_encoder(toy_root: Path, tmp_path: Path) -> None:
    head = case_head(opened(saved(foreign.checkpoint(foreign.plans(toy_root)), tmp_path / "x.pth"), toy_root))
    assert [len(head.layout.blocks[f"encoder {n}"]) for n in range(4)] == [2 * width for width in foreign.WIDTHS]
    assert not any(block.startswith("decoder") for block in head.layout.blocks)


def test_evidence_and_the_targets_size_add_up_to_the_margin(toy_root: Path, tmp_path: Path) -> None:
    head = case_head(opened(saved(foreign.checkpoint(foreign.plans(toy_root)), tmp_path / "x.pth"), toy_root))
    torch.manual_seed(2)
    with torch.no_grad():
        head.classifier.weight.normal_()
        head.classifier.weight[:, -1] = 0  # of the size, which has no place
        head.norm.mean.normal_(std=0.1)
        head.norm.square.copy_(head.norm.mean.square() + 1)
        head.eval()
        features = shown(image())
        logits = head(features)
        maps = head.evidence(features, 1)
        margin, bias = (v[..., 1] - (v[..., 0] + v[..., 2]) / 2 for v in (logits, head.classifier.bias))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 16), (16, 8, 8), (8, 4, 4), (3, 2, 2)]
    torch.testing.assert_close(sum(m.flatten(1).sum(1) for m in maps) + bias, margin, rtol=1e-3, atol=1e-3)


def test_head_is_built_again_from_plain_values(toy_root: Path, tmp_path: Path) -> None:
    head = case_head(opened(saved(foreign.checkpoint(foreign.plans(toy_root)), tmp_path / "x.pth"), toy_root))
    path = saved({"options": head.options, "state": head.state_dict()}, tmp_path / "head.pth")
    content = torch.load(path, weights_only=True)
    again = build_head("case", SPEC, 3, **content["options"])
    again.load_state_dict(content["state"])
    features = shown(image())
    torch.testing.assert_close(again.summarize(features)[0], head.summarize(features)[0])
    assert "encoder" not in build_head("case", SPEC, 3).options  # as before


def wider(toy_root: Path) -> Any:
    state = build(toy_root).state_dict()
    return {n: v.repeat(2, *[1] * (v.ndim - 1)) if "stages.2" in n else v for n, v in state.items()}


def flat(toy_root: Path) -> Any:
    return foreign.checkpoint(foreign.plans(toy_root), configuration="2d")


def flat_weights(toy_root: Path) -> Any:
    return flat(toy_root)["network_weights"]


def other_plans(toy_root: Path) -> Any:
    content = foreign.checkpoint(foreign.plans(toy_root))
    content["network_weights"] = build(toy_root).state_dict()
    return content


def damaged_plans(toy_root: Path) -> Any:
    content = foreign.checkpoint(foreign.plans(toy_root))
    content["init_args"]["plans"] = {"configurations": {}}
    return content


def other_software(toy_root: Path) -> Any:
    content = foreign.checkpoint(foreign.plans(toy_root))
    architecture = content["init_args"]["plans"]["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = "subprocess.Popen"
    return content


def without_encoder(toy_root: Path) -> Any:
    return {"linear.weight": torch.zeros(3, 3)}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (wider, r"expected all its weights, .*found \d\d% that fit.*has to fit the network of this model's plans.*"
                r"Give nnU-Net's checkpoint.*stages\.2\.0\.convs\.0\.conv\.weight: expected shape \(16, 8, 3, 3, 3\)"),
        (flat, r"expected one of a 3D network.*found one of a 2D network.*checkpoint of a 3d configuration"),
        (flat_weights, r"expected weights of a 3D network.*found stages.*of shape \(3, 1, 3, 3\)"),
        (other_plans, r"expected all its weights.*do not belong to the plans that stand in the same file"),
        (damaged_plans, r"expected plans of nnU-Net with the checkpoint's configuration"),
        (other_software, r"Encoder of subprocess\.Popen: expected a network of dynamic_network_architectures"),
        (without_encoder, r"found 0% that fit.*missing in the checkpoint"),
    ],
)  # fmt: skip
def test_encoder_that_does_not_fit_is_named(
    make: Callable[[Path], Any], said: str, toy_root: Path, tmp_path: Path
) -> None:
    path = saved(make(toy_root), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=f"(?s){said}"):
        opened(path, toy_root)


def test_2d_model_takes_a_2d_encoder_and_no_3d_one(toy_root: Path, tmp_path: Path) -> None:
    plans = foreign.plans(toy_root)
    encoder = opened(saved(foreign.checkpoint(plans, configuration="2d"), tmp_path / "2.pth"), toy_root, patch=(16, 16))
    assert encoder.build().spec.dim == 2
    with pytest.raises(
        CheckpointError, match="expected one of a 2D network, as the segmentation is, found one of a 3D"
    ):
        opened(saved(foreign.checkpoint(plans), tmp_path / "3.pth"), toy_root, patch=(16, 16))
