"""Pooled features of whole volumes: what a head sees of a case, window by window, averaged."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_3dct.inference.aggregation import ClassEvidence
from nnunet_3dct.networks.features import UNetFeatures
from nnunet_3dct.networks.heads import ClassificationHead
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, uncompiled
from nnunet_3dct.networks.pooling import pool_features
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.runtime import keep_freed_memory
from nnunet_3dct.upstream import ConfigurationManager, PlansManager, nnUNetPredictor


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


class EvidenceNetwork(nn.Module):
    """Looks to nnU-Net's sliding window like a segmentation network and notes the class on the side.

    Args:
        network: a multi-task network, possibly compiled.
        target: finds the target in the segmentation logits.
        passes_per_window: see :class:`ClassEvidence`.
    """

    def __init__(self, network: nn.Module, target: TargetLabels, passes_per_window: int) -> None:
        super().__init__()
        self.network = network
        self.target = target
        head = getattr(uncompiled(network), "cls_head", None)
        self.evidence = ClassEvidence(passes_per_window, getattr(head, "averages_mirrors", True))

    def forward(self, x: Tensor) -> Tensor:
        """Segmentation logits of ``x``; a failed pass (out of memory) clears the evidence for the retry."""
        try:
            logits, class_logits = self.network(x, return_cls=True)
        except RuntimeError:
            self.evidence.clear()
            raise
        self.evidence.add(class_logits, self.target.voxels(logits))
        return logits

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load into the wrapped network under its own names, as nnU-Net's predictor does for each fold."""
        return self.network.load_state_dict(state_dict, strict=strict, assign=assign)


def upstream_predictor(
    network: nn.Module,
    plans_manager: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict[str, Any],
    device: torch.device,
) -> nnUNetPredictor:
    """A predictor for preprocessed volumes, without mirroring and without messages."""
    if device.type == "cpu":
        keep_freed_memory()
    # off CUDA upstream announces that it turns an option off
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(
            use_mirroring=False, device=device, perform_everything_on_device=device.type == "cuda", allow_tqdm=False
        )
    predictor.manual_initialization(network, plans_manager, configuration, None, dataset_json, "", None)
    return predictor
