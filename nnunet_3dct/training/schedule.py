"""Optimisers and schedules whose parameter groups have rates of their own."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.upstream import nnUNetTrainer

Shape = Callable[[float], float]


def poly(progress: float) -> float:
    """nnU-Net's polynomial: factor after this share of the training."""
    return (1 - progress) ** 0.9


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def split_parameters(network: MultiTaskUNet) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters of the U-Net that are trained, and those of the head."""
    head = list(network.cls_head.parameters())
    in_head = set(map(id, head))
    return [p for p in network.parameters() if id(p) not in in_head and p.requires_grad], head


def sgd(params: Any, trainer: nnUNetTrainer) -> torch.optim.SGD:
    """SGD with the rate and the decay of a trainer and nnU-Net's momentum."""
    return torch.optim.SGD(
        params, lr=trainer.initial_lr, weight_decay=trainer.weight_decay, momentum=0.99, nesterov=True
    )


class GroupLRScheduler(LRScheduler):
    """Scales each group's own initial rate; nnU-Net's ``PolyLRScheduler`` writes one rate into all of them.

    Args:
        optimizer: each group's ``lr`` at construction is its initial rate.
        max_steps: number of epochs.
        shapes: one function a group, or one for all.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, max_steps: int, shapes: Shape | Sequence[Shape] = poly
    ) -> None:
        groups = optimizer.param_groups
        self._initial = [group["lr"] for group in groups]
        self._shapes = [shapes] * len(groups) if callable(shapes) else list(shapes)
        self._max_steps = max_steps
        self._next = 0
        super().__init__(optimizer)

    def step(self, current_step: int | None = None) -> None:
        """Set the rates of epoch ``current_step``, by default of the one after the last."""
        if current_step is None:
            current_step = self._next
            self._next += 1
        progress = current_step / self._max_steps
        for group, initial, shape in zip(self.optimizer.param_groups, self._initial, self._shapes, strict=True):
            group["lr"] = initial * shape(progress)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class CombinedOptimizer(Optimizer):
    """Steps, zeroes, saves and restores all of ``optimizers`` together.

    ``param_groups`` holds the groups of all of them, so schedulers and ``GradScaler`` see every parameter.

    Args:
        optimizers: over disjoint parameters.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.param_groups = groups
        self.state = ChainMap(*(optimizer.state for optimizer in optimizers))  # type: ignore[assignment]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("CombinedOptimizer takes no closure")
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.state = ChainMap(*(optimizer.state for optimizer in self.optimizers))  # type: ignore[assignment]
