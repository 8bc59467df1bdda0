"""One battery over all registered heads, then what holds for single ones."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import build_head, head_names, register_head
from nnunet_3dct.networks.heads.base import ClassificationHead

SPECS = [
    FeatureSpec((4, 8, 16), (8, 4), 3),
    FeatureSpec((5, 7, 9, 11, 13, 13), (13, 11, 9, 7, 5), 3),
    FeatureSpec((6, 12, 24, 24), (24, 12, 6), 2),
    FeatureSpec((1, 1, 1), (1, 1), 2),
]
IDS = ["3d-three-stages", "3d-six-stages", "2d-four-stages", "2d-one-channel"]
every_head = pytest.mark.parametrize("name", head_names())
every_spec = pytest.mark.parametrize("spec", SPECS, ids=IDS)


def features(spec: FeatureSpec, batch: int = 2) -> UNetFeatures:
    """Random features as a network of this spec with strides of 2 gives them."""
    torch.manual_seed(0)
    stages = len(spec.encoder_channels)
    size = 2 ** (stages - 1)

    def make(channels: int, stage: int) -> torch.Tensor:
        return torch.randn(batch, channels, *[size >> stage] * spec.dim)

    encoder = [make(c, n) for n, c in enumerate(spec.encoder_channels)]
    decoder = [make(c, stages - 2 - n) for n, c in enumerate(spec.decoder_channels)]
    return UNetFeatures(encoder, decoder, make(3, 0))


def made(name: str, spec: FeatureSpec, num_classes: int = 3) -> ClassificationHead:
    torch.manual_seed(1)
    return build_head(name, spec, num_classes)


@every_head
@every_spec
@pytest.mark.parametrize("num_classes", [2, 5])
def test_gives_one_row_of_logits_a_sample(name: str, spec: FeatureSpec, num_classes: int) -> None:
    logits = made(name, spec, num_classes)(features(spec))
    assert logits.shape == (2, num_classes)
    assert bool(torch.isfinite(logits).all())


@every_head
@every_spec
def test_every_parameter_gets_a_gradient(name: str, spec: FeatureSpec) -> None:
    head = made(name, spec)
    nn.functional.cross_entropy(head(features(spec)), torch.tensor([0, 2])).backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())] == []


@every_head
@every_spec
def test_samples_of_a_batch_do_not_mix(name: str, spec: FeatureSpec) -> None:
    head = made(name, spec).eval()
    both = features(spec)
    second = UNetFeatures([f[1:] for f in both.encoder], [f[1:] for f in both.decoder], both.logits[1:])
    with torch.no_grad():
        torch.testing.assert_close(head(both)[1:], head(second))


@every_head
@every_spec
def test_bf16_autocast_on_the_cpu_stays_finite_and_near(name: str, spec: FeatureSpec) -> None:
    head = made(name, spec).eval()
    with torch.no_grad():
        expected = head(features(spec))
        with torch.autocast("cpu", torch.bfloat16):
            found = head(features(spec))
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


@every_head
@every_spec
def test_saved_head_is_rebuilt_from_name_classes_and_options(name: str, spec: FeatureSpec) -> None:
    head = made(name, spec).eval()
    stream = io.BytesIO()
    torch.save({"name": name, "n": 3, "options": head.options, "state": head.state_dict()}, stream)
    stream.seek(0)
    saved = torch.load(stream, weights_only=True)
    rebuilt = build_head(saved["name"], spec, saved["n"], **saved["options"]).eval()
    rebuilt.load_state_dict(saved["state"], strict=True)
    with torch.no_grad():
        assert torch.equal(rebuilt(features(spec)), head(features(spec)))


def test_options_come_back_from_the_checkpoint() -> None:
    head = build_head("grid", SPECS[0], 3, grid=2)
    assert head.options == {"grid": 2, "standardize": False}
    rebuilt = build_head("grid", SPECS[0], 3, **head.options)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in head.state_dict().items()}


def test_second_head_of_the_same_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Two heads are named 'grid': GridHead and .*Impostor"):

        @register_head
        class Impostor(ClassificationHead):
            name = "grid"

    assert type(made("grid", SPECS[0])).__qualname__ == "GridHead"


def test_unknown_head_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"'abacus' is not known here; known are .*grid"):
        build_head("abacus", SPECS[0], 3)


def test_grid_head_of_six_stages_has_the_published_parameters() -> None:
    stages = (32, 64, 128, 256, 320, 320)
    with torch.device("meta"):
        head = build_head("grid", FeatureSpec(stages, stages[-2::-1], 3), 3)
    expected: dict[str, tuple[int, ...]] = {}
    for i, channels in enumerate((320, 320, 256, 128, 64, 32)):  # bottleneck, then decoder from coarse to fine
        hidden = channels // 2
        expected[f"mlp_layers.{i}.0.weight"] = (hidden, channels * 4**3)
        expected[f"mlp_layers.{i}.0.bias"] = (hidden,)
        expected[f"mlp_layers.{i}.2.weight"] = (3, hidden)
        expected[f"mlp_layers.{i}.2.bias"] = (3,)
    expected |= {"final_fc.weight": (3, 18), "final_fc.bias": (3,)}
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == expected


def test_standardised_grid_head_has_the_published_parameters_and_learns_level_and_spread() -> None:
    plain, ours = (build_head("grid", SPECS[0], 3, standardize=flag) for flag in (False, True))
    assert {n: p.shape for n, p in plain.named_parameters()} == {n: p.shape for n, p in ours.named_parameters()}
    low = features(SPECS[0], batch=8)
    high = UNetFeatures([f * 3 + 10 for f in low.encoder], [f * 3 + 10 for f in low.decoder], low.logits)
    ours.load_state_dict({**ours.state_dict(), **plain.state_dict()})
    shifted = copy.deepcopy(ours)
    for _ in range(400):
        ours(low)
        ours.after_step()
        shifted(high)
        shifted.after_step()
    with torch.no_grad():
        torch.testing.assert_close(shifted.eval()(high), ours.eval()(low), rtol=0.02, atol=0.02)
        assert not torch.allclose(plain(high), plain(low), atol=0.1)


def test_grid_head_keeps_where_the_strongest_response_is() -> None:
    spec = SPECS[2]
    head = made("grid", spec)
    left, right = features(spec), features(spec)
    left.decoder[-1][..., 0, 0] = 5
    right.decoder[-1][..., 0, 7] = 5
    assert not torch.allclose(head(left), head(right))


def test_head_without_methods_is_named() -> None:
    class Unfinished(ClassificationHead):
        pass

    with pytest.raises(NotImplementedError, match=r"Unfinished gives neither forward nor summarize.*new-head\.md"):
        Unfinished(SPECS[0], 3)(features(SPECS[0]))
