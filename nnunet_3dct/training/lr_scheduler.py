"""nnU-Net's polynomial schedule for optimisers whose groups have rates of their own."""

from __future__ import annotations

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler


class GroupPolyLRScheduler(PolyLRScheduler):
    """Scales each group's own initial rate by nnU-Net's polynomial, so that ratios hold at every epoch.

    Args:
        optimizer: each group's ``lr`` at construction is its initial rate.
        max_steps: number of epochs.
        exponent: of the polynomial.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_steps: int, exponent: float = 0.9) -> None:
        self._initial = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, 1.0, max_steps, exponent)

    def step(self, current_step: int | None = None) -> None:
        super().step(current_step)  # with an initial rate of 1 upstream leaves the factor in every group
        for group, initial in zip(self.optimizer.param_groups, self._initial, strict=True):
            group["lr"] *= initial
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
