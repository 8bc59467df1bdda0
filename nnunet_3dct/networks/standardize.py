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
        least_spread: standard deviation below which a feature is not spread further.
    """

    mean: Tensor
    square: Tensor
    batches: Tensor

    def __init__(
        self, width: int, length: float = 8.0, momentum: float = 0.01, limit: float = 5.0, least_spread: float = 0.1
    ) -> None:
        super().__init__()
        self.scale = length / width**0.5
        self.momentum = momentum
        self.limit = limit
        self.least_spread = least_spread
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("square", torch.ones(width))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        """Standardise ``x`` ``(B, width)`` by what came before; in training note it for what comes after.

        Args:
            x: features.
            counts: bool ``(B,)``, samples whose features mean something; by default all.
        """
        x = x.float()
        spread = (self.square - self.mean.square()).clamp_min(self.least_spread**2).sqrt()
        out = ((x - self.mean) / spread).clamp(-self.limit, self.limit) * self.scale
        if self.training:
            self._note(x.detach(), torch.ones_like(x[:, 0]) if counts is None else counts.float())
        return out

    @torch.no_grad()
    def set_statistics(self, x: Tensor) -> None:
        """Take mean and spread from the samples ``x`` ``(N, width)``, in place of those that were noted."""
        self.mean = x.mean(0).to(self.mean)
        self.square = x.square().mean(0).to(self.square)

    @torch.no_grad()
    def _note(self, x: Tensor, counts: Tensor) -> None:
        weighted = x * counts[:, None]
        sums = torch.stack((weighted.sum(0), (weighted * x).sum(0), counts.sum().expand(x.shape[1])))
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        present = (sums[2, 0] > 0).float()
        self.batches += present
        share = present * torch.clamp(1 / (self.batches + 1), min=self.momentum)  # the start counts as one batch
        moments = sums[:2] / sums[2].clamp_min(1)
        # new tensors: those of this step are still needed for its gradient
        self.mean = torch.lerp(self.mean, moments[0], share)
        self.square = torch.lerp(self.square, moments[1], share)
