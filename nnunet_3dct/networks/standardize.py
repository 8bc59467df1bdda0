"""Standardisation by running statistics, for heads that see two samples at a time."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


class RunningStandardize(nn.Module):
    """Takes mean and spread of earlier batches out of each feature and gives all features together a fixed length.

    Unlike batch normalisation it treats training and prediction alike: the samples of a batch do not meet, so a
    batch of two serves. Statistics are plain averages at first and moving ones with ``momentum`` later; over several
    processes they are those of the whole batch.

    Args:
        width: number of features.
        length: root of the expected sum of squares of the output.
        momentum: of the moving averages.
        limit: standard deviations at which outliers are cut.
    """

    mean: Tensor
    square: Tensor
    batches: Tensor

    def __init__(self, width: int, length: float = 8.0, momentum: float = 0.01, limit: float = 5.0) -> None:
        super().__init__()
        self.scale = length / width**0.5
        self.momentum = momentum
        self.limit = limit
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("square", torch.ones(width))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise ``x`` ``(B, width)`` by what came before; in training note it for what comes after."""
        x = x.float()
        spread = (self.square - self.mean.square()).clamp_min(1e-2).sqrt()
        out = ((x - self.mean) / spread).clamp(-self.limit, self.limit) * self.scale
        if self.training:
            self._note(x.detach())
        return out

    @torch.no_grad()
    def _note(self, x: Tensor) -> None:
        moments = torch.stack((x.mean(0), x.square().mean(0)))
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(moments)
            moments /= distributed.get_world_size()
        self.batches += 1
        share = torch.clamp(1 / (self.batches + 1), min=self.momentum)  # the start counts as one batch
        # new tensors: those of this step are still needed for its gradient
        self.mean = torch.lerp(self.mean, moments[0], share)
        self.square = torch.lerp(self.square, moments[1], share)
