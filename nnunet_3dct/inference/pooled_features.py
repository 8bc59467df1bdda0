"""Pooled features of whole volumes: what a head sees of a case, window by window, averaged."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_3dct.networks.heads import ClassificationHead
from nnunet_3dct.networks.heads.base import UNetFeatures
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.networks.pooling import pool_features
from nnunet_3dct.target import TargetLabels


class PooledFeatures(nn.Module):
    """Looks to nnU-Net's sliding window like a segmentation network and notes the pooled features on the side.

    Windows are averaged with the target voxels that the network finds in them as weights.

    Args:
        unet: a network with nnU-Net's ``encoder`` and ``decoder``; its modules are used, not copied.
        target: finds the target in the segmentation logits.
        head: whose class probabilities are averaged alike, if any.
    """

    def __init__(self, unet: nn.Module, target: TargetLabels, head: ClassificationHead | None = None) -> None:
        super().__init__()
        self.network = MultiTaskUNet(unet, _Pooling(target, head))  # type: ignore[arg-type]
        self.target = target
        self.windows: list[tuple[Tensor, Tensor | None, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Segmentation logits; a failed pass (out of memory) clears what was noted, for nnU-Net's retry."""
        try:
            logits, (pooled, class_logits) = self.network(x, return_cls=True)
        except RuntimeError:
            self.windows.clear()
            raise
        probs = None if class_logits is None else class_logits.cpu().double().softmax(1)
        self.windows.append((pooled.cpu().double(), probs, self.target.voxels(logits).cpu().double()))
        return logits

    def result(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Pooled features and head probabilities of the windows since the last ``windows.clear()``."""
        weights = torch.cat([voxels for _, _, voxels in self.windows])
        if not bool(weights.sum() > 0):
            weights = torch.ones_like(weights)
        weights = weights / weights.sum()
        pooled = torch.cat([p for p, _, _ in self.windows])
        probs = [p for _, p, _ in self.windows if p is not None]
        return (weights @ pooled).numpy(), (weights @ torch.cat(probs)).numpy() if probs else None


class _Pooling(nn.Module):
    """Stands where the head stands; gives the pooled features, and what the head says if there is one."""

    def __init__(self, target: TargetLabels, head: ClassificationHead | None) -> None:
        super().__init__()
        self.target = target
        self.head = head

    def forward(self, features: UNetFeatures) -> tuple[Tensor, Tensor | None]:
        pooled = pool_features(features, self.target.channels, self.target.has_regions)
        return pooled, self.head(features) if self.head is not None else None
