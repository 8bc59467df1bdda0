"""The published heads on features as instance norms leave them: what tells the classes apart is a hundredth of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.checkpoint import check_unet_fits
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import ClassificationHead, build_head

SPEC = FeatureSpec((4, 8, 16), (8, 4), 3)
SMALL = {"width": 16, "memory": 4, "depth": 1, "attention_heads": 2, "tokens": [2, 2, 2], "dropout": 0.0}
OPTIONS = {"grid": {"grid": 2}, "simple": {}, "detached": {}, "memory_attention": SMALL}
every_head = pytest.mark.parametrize("name", OPTIONS)


def patches(count: int, seed: int) -> tuple[UNetFeatures, torch.Tensor]:
    """Features of a level of their own, which all patches share, and classes that shift it by a hundredth."""
    shared, drawn = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    classes = torch.randint(2, (count,), generator=drawn)

    def make(channels: int, size: int) -> torch.Tensor:
        level = 0.4 + 0.4 * torch.randn(channels, size, size, size, generator=shared)
        direction = torch.randn(channels, 1, 1, 1, generator=shared)
        noise = torch.randn(count, channels, 1, 1, 1, generator=drawn)
        return level + 0.01 * (noise + (2.0 * classes - 1).view(-1, 1, 1, 1, 1) * direction)

    encoder = [make(c, 4 >> n) for n, c in enumerate(SPEC.encoder_channels)]
    decoder = [make(c, 2 << n) for n, c in enumerate(SPEC.decoder_channels)]
    return UNetFeatures(encoder, decoder, torch.empty(0)), classes


def optimizer(name: str, head: ClassificationHead) -> torch.optim.Optimizer:
    """As the head's trainer has it."""
    if name == "detached":
        return torch.optim.Adam(head.parameters(), 5e-3)
    if name == "memory_attention":
        return torch.optim.RAdam(head.parameters(), 1e-3, weight_decay=3e-5)
    rate = 1e-2 if name == "grid" else 1e-3
    return torch.optim.SGD(head.parameters(), rate, momentum=0.99, nesterov=True, weight_decay=3e-5)


def loss_after_training(name: str, standardize: bool, steps: int = 400) -> float:
    """Of new patches, after a training in pairs with the weight 0.3 and clipping of the trainers."""
    torch.manual_seed(0)
    head = build_head(name, SPEC, 2, standardize=standardize, **OPTIONS[name])
    features, classes = patches(2 * steps, seed=1)
    summary, descent = head.summarize(features), optimizer(name, head)
    rates = [group["lr"] for group in descent.param_groups]
    for step in range(steps):
        drawn = slice(2 * step, 2 * step + 2)
        for group, rate in zip(descent.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - (step // 100 * 100) / steps) ** 0.9
        descent.zero_grad()
        (0.3 * functional.cross_entropy(head.classify(*(s[drawn] for s in summary)), classes[drawn])).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 12)
        descent.step()
        head.after_step()
    features, classes = patches(200, seed=2)
    with torch.no_grad():
        return float(functional.cross_entropy(head.eval()(features), classes))


@every_head
def test_learns_a_hundredth_of_the_features_once_they_are_standardised(name: str) -> None:
    assert loss_after_training(name, standardize=True) < 0.35


@every_head
def test_stays_near_guessing_on_raw_features(name: str) -> None:
    assert loss_after_training(name, standardize=False) > 0.9 * math.log(2)


@every_head
def test_standardised_head_has_the_parameters_of_the_published_one(name: str) -> None:
    raw, ours = (build_head(name, SPEC, 3, standardize=flag, **OPTIONS[name]) for flag in (False, True))
    assert {n: p.shape for n, p in raw.named_parameters()} == {n: p.shape for n, p in ours.named_parameters()}


@every_head
def test_head_of_before_without_the_option_is_built_raw_and_loads(name: str) -> None:
    raw = build_head(name, SPEC, 3, **OPTIONS[name])
    assert raw.options["standardize"] is False
    assert not [key for key in raw.state_dict() if key.startswith("prepare")]
    standardised = build_head(name, SPEC, 3, standardize=True, **OPTIONS[name])
    check_unet_fits(raw.state_dict(), dict(raw.state_dict()), "of before")
    with pytest.raises(CheckpointError, match=r"prepare.*missing in the checkpoint"):
        check_unet_fits(standardised.state_dict(), raw.state_dict(), "of before")
