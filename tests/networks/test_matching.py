"""Which weights of a checkpoint fit a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.networks.matching import encoder_part, encoder_weights, match_weights
from tests import toy


def build(toy_root: Path, channels: int = 1, labels: int = 3, plans: str = toy.PLANS, seed: int = 0) -> Any:
    """A U-Net of the toy plans by nnU-Net's own function."""
    torch.manual_seed(seed)
    manager = PlansManager(json.loads((toy_root / "preprocessed" / toy.DATASET / f"{plans}.json").read_text()))
    return nnUNetTrainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), channels, labels)


def test_own_network_matches_completely(toy_root: Path) -> None:
    state = build(toy_root).state_dict()
    matched = match_weights(build(toy_root, seed=1).state_dict(), state, "x.pth")
    assert matched.complete and matched.encoder_share == 1.0 and matched.describe() == []
    assert matched.weights.keys() == state.keys() and all(torch.equal(matched.weights[k], state[k]) for k in state)


def test_other_labels_and_channels_leave_out_segmentation_layers_and_stem(toy_root: Path) -> None:
    found = build(toy_root, channels=2, labels=25).state_dict()
    matched = match_weights(build(toy_root, seed=1).state_dict(), found, "x.pth")
    segmentation = {f"decoder.seg_layers.{n}.{part}" for n in range(2) for part in ("weight", "bias")}
    stem = "encoder.stages.0.0.convs.0.conv.weight"
    assert set(matched.left_out) == {stem, *segmentation}
    assert matched.left_out[stem] == "expected shape (4, 1, 3, 3, 3), found (4, 2, 3, 3, 3)"
    assert not matched.complete and matched.unused == []
    lines = matched.describe()
    assert all(any(name in line for line in lines) for name in matched.left_out)
    assert "\n".join(lines).isascii()
    encoder = [v.numel() for k, v in build(toy_root).encoder.named_parameters()]
    assert matched.encoder_share == pytest.approx(1 - 4 * 27 / sum(encoder))


@pytest.mark.parametrize(("kept", "fits"), [(0.45, False), (0.55, True)])
def test_half_of_the_encoder_by_elements_has_to_fit(kept: float, fits: bool) -> None:
    expected = {"encoder.a": torch.zeros(100), "encoder.b": torch.zeros(round(100 * (1 - kept) / kept))}
    expected["decoder.c"] = torch.zeros(10_000)  # does not count
    found = {"encoder.a": torch.ones(100), "decoder.c": torch.ones(10_000)}
    if fits:
        assert match_weights(expected, found, "x.pth").encoder_share == pytest.approx(kept, abs=0.01)
        return
    with pytest.raises(CheckpointError, match=r"x\.pth belongs to another network: 45% of the encoder's") as caught:
        match_weights(expected, found, "x.pth")
    assert "encoder.b: missing in the checkpoint" in str(caught.value)


def test_residual_encoder_is_another_network(toy_root: Path) -> None:
    with pytest.raises(CheckpointError, match="belongs to another network: 0% "):
        match_weights(build(toy_root, plans=toy.RESENC_PLANS).state_dict(), build(toy_root).state_dict(), "plain.pth")


@pytest.mark.parametrize("kept", ["encoder.", "decoder.encoder."])
def test_encoder_under_one_of_its_two_names_is_enough(kept: str, toy_root: Path) -> None:
    source, network = build(toy_root), build(toy_root, seed=1)
    found = {k: v for k, v in source.state_dict().items() if k.startswith(kept)}
    matched = match_weights(network.state_dict(), found, "x.pth")
    assert matched.encoder_share == 1.0
    network.load_state_dict(matched.weights, strict=False)
    for name, value in source.encoder.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[name], value), name


def test_layers_named_once_are_loaded_too(toy_root: Path) -> None:
    source, network = build(toy_root), build(toy_root, seed=1)
    found = {k: v for k, v in source.state_dict().items() if ".all_modules." not in k}
    assert len(found) < len(source.state_dict())
    matched = match_weights(network.state_dict(), found, "x.pth")
    network.load_state_dict(matched.weights, strict=False)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in source.state_dict().items())


def test_parameters_without_a_place_are_named(toy_root: Path) -> None:
    state = {**build(toy_root).state_dict(), "cls.weight": torch.ones(1)}
    matched = match_weights(build(toy_root).state_dict(), state, "x.pth")
    assert matched.unused == ["cls.weight"] and not matched.complete
    assert any("cls.weight: only in the checkpoint" in line for line in matched.describe())


def test_frozen_encoder_gets_its_weights_and_nothing_else(toy_root: Path) -> None:
    source, network = build(toy_root, labels=25), build(toy_root, seed=1)
    weights = encoder_weights(network.encoder.state_dict(), encoder_part(source.state_dict()), "x.pth", "")
    network.encoder.load_state_dict(weights, strict=False)
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        for mine, theirs in zip(network.encoder(x), source.encoder(x), strict=True):
            assert torch.equal(mine, theirs)


def test_frozen_encoder_with_an_untrained_stem_is_refused(toy_root: Path) -> None:
    found = encoder_part(build(toy_root, channels=2).state_dict())
    with pytest.raises(CheckpointError, match=r"x\.pth: expected all its .*found 98% that fit\. Do so") as caught:
        encoder_weights(build(toy_root).encoder.state_dict(), found, "x.pth", "Do so.")
    assert "stages.0.0.convs.0.conv.weight: expected shape (4, 1, 3, 3, 3)" in str(caught.value)
