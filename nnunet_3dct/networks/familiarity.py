"""How far a case lies from the training cases: Mahalanobis distance under a shrunk covariance."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor, nn

FAR = 20.0  # standard deviations at which a single feature is cut off


class Familiarity(nn.Module):
    """Distance of a case's features from those of the training cases.

    Ledoit and Wolf's covariance of the standardised features is a multiple of the identity plus as many directions as
    there are cases, which is what is kept (Ledoit & Wolf 2004; Lee et al., A Simple Unified Framework for Detecting
    Out-of-Distribution Samples, NeurIPS 2018, for the use of the distance).

    Args:
        width: number of features.
        directions: that are kept; 0 before :meth:`fit`, then nothing is unfamiliar.

    Attributes:
        threshold: distance above which a case is unfamiliar.
    """

    center: Tensor
    spread: Tensor
    axes: Tensor
    gains: Tensor
    floor: Tensor
    threshold: Tensor

    def __init__(self, width: int, directions: int = 0) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("spread", torch.zeros(width))
        self.register_buffer("axes", torch.zeros(directions, width))
        self.register_buffer("gains", torch.zeros(directions))
        self.register_buffer("floor", torch.ones(()))
        self.register_buffer("threshold", torch.full((), float("inf")))

    @property
    def is_fitted(self) -> bool:
        """Whether there is anything to compare with."""
        return len(self.axes) > 0

    def deviations(self, columns: Tensor) -> Tensor:
        """Standard deviations by which features ``(N, width)`` differ from the average; 0 for those not compared."""
        used = self.spread > 0
        z = (columns.float() - self.center) / torch.where(used, self.spread, 1.0)
        return torch.nan_to_num(z).clamp(-FAR, FAR) * used

    def distance(self, columns: Tensor) -> Tensor:
        """Mahalanobis distance divided by the root of the number of features, ``(N,)``.

        Args:
            columns: ``(N, width)``; features that are missing (NaN) count as average.
        """
        z, used = self.deviations(columns), self.spread > 0
        along = (z @ self.axes.T).square() @ self.gains
        return ((z.square().sum(1) - along).clamp_min(0) / self.floor / used.sum().clamp_min(1)).sqrt()


def fit_familiarity(columns: np.ndarray, used: np.ndarray, least: np.ndarray | float = 0.0) -> Familiarity:
    """Learn the training cases; the threshold is left open.

    Args:
        columns: ``(N, width)``, at least two cases; NaN counts as average.
        used: bool ``(width,)``, features that are compared.
        least: difference ``(width,)`` of a feature that means nothing, whatever the training cases show: it is added to
            their spread as an error of measurement would be.
    """
    center = np.nanmean(columns, axis=0)
    spread = np.hypot(np.nanstd(columns, axis=0), least)
    spread = np.where(used & (spread > 1e-6), spread, 0.0)
    known = spread > 0
    z = np.nan_to_num((columns[:, known] - center[known]) / spread[known]).clip(-FAR, FAR)
    shrinkage = float(ledoit_wolf_shrinkage(z))
    z = z - z.mean(0)
    _, singular, directions = np.linalg.svd(z, full_matrices=False)
    variances = singular**2 / len(z)
    floor = shrinkage * variances.sum() / z.shape[1] + 1e-6
    along = (1 - shrinkage) * variances
    familiarity = Familiarity(columns.shape[1], len(variances))
    familiarity.center.copy_(torch.from_numpy(np.nan_to_num(center)))
    familiarity.spread.copy_(torch.from_numpy(spread))
    familiarity.axes[:, torch.from_numpy(known)] = torch.from_numpy(directions).float()
    familiarity.gains.copy_(torch.from_numpy(along / (along + floor)))
    familiarity.floor.fill_(float(floor))
    return familiarity
