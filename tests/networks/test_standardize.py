"""Standardisation by running statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from nnunet_3dct.networks.standardize import RunningStandardize


def data(n: int, seed: int = 0) -> torch.Tensor:
    """Features of very different level and spread."""
    generator = torch.Generator().manual_seed(seed)
    level, spread = torch.linspace(-5, 50, 64), torch.linspace(0.2, 9, 64)
    return level + spread * torch.randn(n, 64, generator=generator)


def train(layer: RunningStandardize, *batch: torch.Tensor) -> torch.Tensor:
    """One training step as far as the layer is concerned."""
    out = layer(*batch)
    layer.update()
    return out


def test_after_many_small_batches_features_are_standardised_to_the_length() -> None:
    layer = RunningStandardize(64, length=8.0)
    for pair in data(2000).split(2):
        train(layer, pair)
    out = layer.eval()(data(4000, seed=1))
    torch.testing.assert_close(out.mean(0), torch.zeros(64), atol=0.25, rtol=0)
    torch.testing.assert_close(out.std(0), torch.ones(64), atol=0.2, rtol=0)
    assert abs(float(out.square().sum(1).mean().sqrt()) - 8) < 0.6


def test_samples_of_a_batch_do_not_meet_in_training_either() -> None:
    layer = RunningStandardize(64)
    train(layer, data(50))
    pair = data(2, seed=3)
    alone = copy.deepcopy(layer)(pair[:1])
    assert torch.equal(layer(pair)[:1], alone)


def test_prediction_changes_nothing_and_the_state_can_be_saved() -> None:
    layer = RunningStandardize(64)
    train(layer, data(50))
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
        train(layer, torch.ones(2, 64))
    x = torch.full((1, 64), 1e6, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert float(out.abs().max()) <= 5.0 and bool(torch.isfinite(x.grad).all())


def test_samples_that_do_not_count_leave_the_statistics_alone() -> None:
    layer, other = RunningStandardize(64), RunningStandardize(64)
    x = data(6)
    train(layer, x[:3])
    train(other, torch.cat((x[:3], 1000 + x[3:])), torch.tensor([True] * 3 + [False] * 3))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in layer.state_dict().items())
    before = {k: v.clone() for k, v in other.state_dict().items()}
    train(other, x, torch.zeros(6, dtype=torch.bool))
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_statistics_are_plain_averages_at_first_in_which_the_start_counts_as_one_batch() -> None:
    layer = RunningStandardize(64)
    first, second = data(8), data(8, seed=1)
    train(layer, first)
    train(layer, second)
    torch.testing.assert_close(layer.mean, (first.mean(0) + second.mean(0)) / 3)
    torch.testing.assert_close(layer.square, (1 + first.square().mean(0) + second.square().mean(0)) / 3)


def test_later_statistics_move_by_the_momentum() -> None:
    layer = RunningStandardize(64, momentum=0.25)
    for _ in range(10):
        train(layer, data(8))
    before, x = layer.mean.clone(), data(8, seed=1)
    train(layer, x)
    torch.testing.assert_close(layer.mean, 0.75 * before + 0.25 * x.mean(0))


def test_step_that_is_left_out_leaves_no_trace() -> None:
    layer, other = RunningStandardize(64), RunningStandardize(64)
    layer(torch.full((2, 64), float("nan")))
    for each in (layer, other):
        train(each, data(8))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in layer.state_dict().items())


def test_sums_of_several_processes_are_those_of_the_whole_batch() -> None:
    whole, part = RunningStandardize(64), RunningStandardize(64)
    x, counts = data(6), torch.tensor([True, False, True, True, True, False])
    train(whole, x, counts)
    part(x[:2], counts[:2])
    mine = part.sums.clone()
    part(x[2:], counts[2:])
    part.update(lambda sums: sums.add_(mine))
    for key, expected in whole.state_dict().items():
        torch.testing.assert_close(part.state_dict()[key], expected)


@pytest.mark.parametrize("given", [True, False])
def test_compiled_training_is_one_graph_traced_once(given: bool) -> None:
    torch._dynamo.reset()
    plain, layer = RunningStandardize(64), RunningStandardize(64)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    counts = (torch.tensor([True, False]),) if given else ()
    for pair in data(8).split(2):
        x, y = pair.clone().requires_grad_(), pair.clone().requires_grad_()
        compiled(x, *counts).square().sum().backward()
        plain(y, *counts).square().sum().backward()
        layer.update()
        plain.update()
        torch.testing.assert_close(x.grad, y.grad)
    assert counter.frame_count == 1
    for key, expected in plain.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], expected)
    torch._dynamo.reset()
