"""Several optimisers behind the interface of one, so that nnU-Net's loop, scaler and checkpoints need no change."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


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
