"""Two optimisers behind one interface step, save and restore as they would alone."""

from __future__ import annotations

import copy

import torch
from torch import nn

from nnunet_3dct.training.schedule import CombinedOptimizer, GroupLRScheduler


def _layers() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(4, 4), nn.Linear(4, 2)


def _optimizers(body: nn.Module, head: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.SGD(body.parameters(), 0.1, momentum=0.9), torch.optim.AdamW(head.parameters(), 0.01)


def _step(body: nn.Module, head: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    head(body(torch.ones(3, 4))).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()


def test_combined_steps_equal_separate_ones() -> None:
    body, head = _layers()
    other_body, other_head = copy.deepcopy(body), copy.deepcopy(head)
    combined, separate = CombinedOptimizer(*_optimizers(body, head)), _optimizers(other_body, other_head)
    for _ in range(5):
        _step(body, head, combined)
        _step(other_body, other_head, *separate)
    for ours, theirs in zip((body, head), (other_body, other_head), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_schedule_keeps_the_ratio_of_the_two_rates() -> None:
    optimizer = CombinedOptimizer(*_optimizers(*_layers()))
    scheduler = GroupLRScheduler(optimizer, 10)
    for epoch in range(10):
        scheduler.step(epoch)
        rates = [inner.param_groups[0]["lr"] for inner in optimizer.optimizers]
        assert rates[0] == optimizer.param_groups[0]["lr"] == 0.1 * (1 - epoch / 10) ** 0.9
        assert abs(rates[0] / rates[1] - 10) < 1e-9


def test_restored_state_goes_on_as_the_unbroken_run_and_obeys_the_schedule() -> None:
    body, head = _layers()
    optimizer = CombinedOptimizer(*_optimizers(body, head))
    for _ in range(3):
        _step(body, head, optimizer)
    state, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy((body, head))
    _step(body, head, optimizer)

    restored_body, restored_head = weights
    restored = CombinedOptimizer(*_optimizers(restored_body, restored_head))
    scheduler = GroupLRScheduler(restored, 10)
    restored.load_state_dict(state)
    _step(restored_body, restored_head, restored)
    assert torch.equal(head.weight, restored_head.weight) and torch.equal(body.weight, restored_body.weight)
    scheduler.step(5)
    assert [o.param_groups[0]["lr"] for o in restored.optimizers] == [g["lr"] for g in restored.param_groups]
