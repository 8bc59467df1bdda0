from __future__ import annotations

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_3dct.training.schedule import GroupLRScheduler, cosine, poly

EPOCHS = 20


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=rates[0])


def rates(of: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in of.param_groups]


@pytest.mark.parametrize("numbered", [True, False], ids=["step(epoch)", "step()"])
def test_equals_nnunets_schedule_for_one_group(numbered: bool) -> None:
    ours, stock = optimizer(0.01), optimizer(0.01)
    our_schedule, stock_schedule = GroupLRScheduler(ours, EPOCHS), PolyLRScheduler(stock, 0.01, EPOCHS)
    for epoch in range(EPOCHS):
        our_schedule.step(*[epoch] * numbered)
        stock_schedule.step(*[epoch] * numbered)
        assert rates(ours) == pytest.approx(rates(stock), rel=1e-12, abs=1e-15)
        assert our_schedule.get_last_lr() == rates(ours)


def test_ratio_of_ten_holds_at_every_epoch() -> None:
    of = optimizer(1e-3, 1e-2)
    schedule = GroupLRScheduler(of, EPOCHS)
    assert rates(of) == pytest.approx([1e-3, 1e-2])
    for epoch in range(EPOCHS):
        schedule.step(epoch)
        unet, head = rates(of)
        assert head == pytest.approx(10 * unet)
        assert unet == pytest.approx(1e-3 * (1 - epoch / EPOCHS) ** 0.9)


def test_resumed_run_goes_on_with_the_rates_of_an_unbroken_one() -> None:
    first = optimizer(1e-3, 1e-2)
    schedule = GroupLRScheduler(first, EPOCHS)
    for epoch in range(8):
        schedule.step(epoch)
    resumed = optimizer(1e-3, 1e-2)
    after = GroupLRScheduler(resumed, EPOCHS)
    resumed.load_state_dict(first.state_dict())  # as nnU-Net: optimiser from the checkpoint, schedule made anew
    for epoch in range(8, EPOCHS):
        schedule.step(epoch)
        after.step(epoch)
        assert rates(resumed) == rates(first)


def test_groups_may_follow_shapes_of_their_own() -> None:
    of = optimizer(1e-3, 5e-3)
    schedule = GroupLRScheduler(of, EPOCHS, [poly, cosine])
    stock = torch.optim.lr_scheduler.CosineAnnealingLR(alone := optimizer(5e-3), EPOCHS)
    for epoch in range(EPOCHS):
        schedule.step(epoch)
        assert rates(of) == pytest.approx([1e-3 * (1 - epoch / EPOCHS) ** 0.9, rates(alone)[0]])
        alone.step()
        stock.step()
