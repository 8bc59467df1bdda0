"""Standardisation by running statistics."""

from __future__ import annotations

import copy

import torch

from nnunet_3dct.networks.standardize import RunningStandardize


def data(n: int, seed: int = 0) -> torch.Tensor:
    """Features of very different level and spread."""
    generator = torch.Generator().manual_seed(seed)
    level, spread = torch.linspace(-5, 50, 64), torch.linspace(0.2, 9, 64)
    return level + spread * torch.randn(n, 64, generator=generator)


def test_after_many_small_batches_features_are_standardised_to_the_length() -> None:
    layer = RunningStandardize(64, length=8.0)
    for pair in data(2000).split(2):
        layer(pair)
    out = layer.eval()(data(4000, seed=1))
    torch.testing.assert_close(out.mean(0), torch.zeros(64), atol=0.25, rtol=0)
    torch.testing.assert_close(out.std(0), torch.ones(64), atol=0.2, rtol=0)
    assert abs(float(out.square().sum(1).mean().sqrt()) - 8) < 0.6


def test_samples_of_a_batch_do_not_meet_in_training_either() -> None:
    layer = RunningStandardize(64)
    layer(data(50))
    pair = data(2, seed=3)
    alone = copy.deepcopy(layer)(pair[:1])
    assert torch.equal(layer(pair)[:1], alone)


def test_prediction_changes_nothing_and_the_state_can_be_saved() -> None:
    layer = RunningStandardize(64)
    layer(data(50))
    layer.eval()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    expected = layer(data(3, seed=3))
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    other = RunningStandardize(64).eval()
    other.load_state_dict(before)
    assert torch.equal(other(data(3, seed=3)), expected)


def test_outliers_and_constant_features_stay_finite_with_their_gradient() -> None:
    layer = RunningStandardize(64)
    for _ in range(20):
        layer(torch.ones(2, 64))
    x = torch.full((1, 64), 1e6, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert float(out.abs().max()) <= 5.0 and bool(torch.isfinite(x.grad).all())


def test_samples_that_do_not_count_leave_the_statistics_alone() -> None:
    layer, other = RunningStandardize(64), RunningStandardize(64)
    x = data(6)
    layer(x[:3])
    other(torch.cat((x[:3], 1000 + x[3:])), torch.tensor([True] * 3 + [False] * 3))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in layer.state_dict().items())
    before = {k: v.clone() for k, v in other.state_dict().items()}
    other(x, torch.zeros(6, dtype=torch.bool))
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
