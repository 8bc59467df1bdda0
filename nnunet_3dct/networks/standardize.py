"""Standardisation by running statistics, for heads that see two samples at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class RunningStandardize(nn.Module):
    """Takes mean and spread of earlier batches out of each feature and gives all features together a fixed length.

    Unlike batch normalisation it treats training and prediction alike: the samples of a batch do not meet, so a
    batch of two serves. Statistics are plain averages at first and moving ones with ``momentum`` later. A forward pass
    in training only keeps the sums of its batch; :meth:`update` takes them up after the optimiser's step. So a step
    that is skipped leaves no trace, and over several processes, whose sums are added up there, nothing waits for
    another process inside a compiled forward pass.

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
    sums: Tensor

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
        self.register_buffer("sums", torch.zeros(3, width), persistent=False)  # of x, of x squared, of samples

    @classmethod
    def of_averages(cls, width: int, length: float = 8.0) -> RunningStandardize:
        """For averages over many voxels, whose spread over cases may be a hundredth of that of the voxels.

        Args:
            width, length: as of the class.
        """
        return cls(width, length, least_spread=1e-3)

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        """Standardise ``x`` ``(B, width)`` by what came before; in training keep its sums for :meth:`update`.

        Args:
            x: features.
            counts: bool ``(B,)``, samples whose features mean something; by default all.
        """
        x = x.float()
        if self.training:
            with torch.no_grad():
                weights = torch.ones_like(x[:, 0]) if counts is None else counts.float()
                weighted = x * weights[:, None]
                samples = weights.sum().expand(x.shape[1])
                self.sums.copy_(torch.stack((weighted.sum(0), (weighted * x).sum(0), samples)))
        spread = (self.square - self.mean.square()).clamp_min(self.least_spread**2).sqrt()
        return ((x - self.mean) / spread).clamp(-self.limit, self.limit) * self.scale

    @torch.no_grad()
    def update(self, all_reduce: Callable[[Tensor], object] | None = None) -> None:
        """Take the batch of the last forward pass into the statistics.

        Args:
            all_reduce: adds up a tensor over the processes that share the batch, in place.
        """
        if all_reduce is not None:
            all_reduce(self.sums)
        present = (self.sums[2, 0] > 0).float()
        self.batches += present
        share = present * torch.clamp(1 / (self.batches + 1), min=self.momentum)  # the start counts as one batch
        moments = self.sums[:2] / self.sums[2].clamp_min(1)
        self.mean.lerp_(moments[0], share)
        self.square.lerp_(moments[1], share)

    @torch.no_grad()
    def set_statistics(self, x: Tensor) -> None:
        """Take mean and spread from the samples ``x`` ``(N, width)``, in place of those so far."""
        self.mean.copy_(x.mean(0))
        self.square.copy_(x.square().mean(0))
