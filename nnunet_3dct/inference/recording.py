"""Networks that note something on the side while nnU-Net's sliding window runs them.

nnU-Net starts a case again after any RuntimeError, wherever it was raised: in the network, or in the sums on the
device. What is noted therefore belongs to an attempt at a case. :class:`RecordingPredictor` tells the network when an
attempt begins; where nnU-Net makes its own predictor, as in the final validation, the number of windows of the case
tells which passes are those of the last attempt.
"""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_3dct.inference.aggregation import CaseClass, ClassRecord
from nnunet_3dct.networks.features import UNetFeatures
from nnunet_3dct.networks.heads import ClassificationHead
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, uncompiled
from nnunet_3dct.networks.pooling import pool_features
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.upstream import ConfigurationManager, PlansManager, nnUNetPredictor


class Recorder(nn.Module, ABC):
    """Looks to nnU-Net's sliding window like a segmentation network and notes something on the side.

    Args:
        network: what runs; a compiled one stays compiled, while the noting is never traced.
        target: finds the target in the segmentation logits.
    """

    def __init__(self, network: nn.Module, target: TargetLabels) -> None:
        super().__init__()
        self.network = network
        self.target = target
        self.windows: int | None = None

    def start_case(self, windows: int | None = None) -> None:
        """Forget what was noted.

        Args:
            windows: of the case that begins, see :func:`~nnunet_3dct.inference.windows.window_layout`; the result
                is then that of its last attempt. None if no attempt can have been broken off.
        """
        self.windows = windows
        self.clear()

    @abstractmethod
    def clear(self) -> None:
        """Forget what was noted."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load into the wrapped network under its own names, as nnU-Net's predictor does for each fold."""
        return self.network.load_state_dict(state_dict, strict=strict, assign=assign)


class RecordingNetwork(Recorder):
    """Notes the class logits of every pass.

    Args:
        network: a multi-task network, possibly compiled.
        target: see :class:`Recorder`.
        passes_per_window: see :class:`ClassRecord`.
    """

    def __init__(self, network: nn.Module, target: TargetLabels, passes_per_window: int) -> None:
        super().__init__(network, target)
        head = getattr(uncompiled(network), "cls_head", None)
        self._record = ClassRecord(passes_per_window, getattr(head, "averages_mirrors", True))

    def clear(self) -> None:
        """Forget what was noted."""
        self._record.clear()

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """Segmentation logits of ``x``."""
        logits, class_logits = self.network(x, return_cls=True)
        self._record.add(class_logits, self.target.voxels(logits))
        return logits

    def result(self) -> CaseClass:
        """The class of the case since :meth:`start_case`.

        Raises:
            RuntimeError: the passes do not fill its windows.
        """
        return self._record.result(self.windows)


class PooledFeatures(Recorder):
    """Notes the pooled features of every pass: what a head sees of a case.

    Windows are averaged with the target voxels that the network finds in them as weights. Without mirroring only.

    Args:
        unet: a network with nnU-Net's ``encoder`` and ``decoder``; its modules are used, not copied.
        target: see :class:`Recorder`.
        head: whose class probabilities are averaged alike, if any.

    Attributes:
        passes: pooled features ``(B, width)``, head probabilities and target voxels of each pass noted so far.
    """

    def __init__(self, unet: nn.Module, target: TargetLabels, head: ClassificationHead | None = None) -> None:
        super().__init__(MultiTaskUNet(unet, _Pooling(target, head)), target)  # type: ignore[arg-type]
        self.passes: list[tuple[Tensor, Tensor | None, Tensor]] = []

    def clear(self) -> None:
        """Forget what was noted."""
        self.passes.clear()

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """Segmentation logits of ``x``."""
        logits, (pooled, class_logits) = self.network(x, return_cls=True)
        probs = None if class_logits is None else class_logits.cpu().double().softmax(1)
        self.passes.append((pooled.cpu().double(), probs, self.target.voxels(logits).cpu().double()))
        return logits

    def result(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Pooled features and head probabilities of the case since :meth:`start_case`.

        Raises:
            RuntimeError: the passes do not fill its windows.
        """
        count = len(self.passes) if self.windows is None else self.windows
        if count == 0 or count > len(self.passes):
            raise RuntimeError(f"{len(self.passes)} passes do not make up {self.windows or 'any'} windows")
        passes = self.passes[-count:]
        weights = torch.cat([voxels for _, _, voxels in passes])
        if not bool(weights.sum() > 0):
            weights = torch.ones_like(weights)
        weights = weights / weights.sum()
        pooled = torch.cat([p for p, _, _ in passes])
        probs = [p for _, p, _ in passes if p is not None]
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


class RecordingPredictor(nnUNetPredictor):
    """nnU-Net's sliding window over a :class:`Recorder`; each attempt at a case starts with an empty record."""

    network: Recorder

    def _internal_predict_sliding_window_return_logits(
        self, data: Tensor, slicers: Any, do_on_device: bool = True
    ) -> Tensor:
        self.network.start_case(len(slicers))
        return super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)


def recording_predictor(
    network: Recorder,
    plans_manager: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict[str, Any],
    device: torch.device,
) -> RecordingPredictor:
    """A predictor for preprocessed volumes, without mirroring and without messages.

    ``predict_sliding_window_return_logits(image)`` runs a case, after which ``network.result()`` is that case's.
    """
    # off CUDA upstream announces that it turns an option off, with nnUNet_compile that it compiles
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = RecordingPredictor(
            use_mirroring=False, device=device, perform_everything_on_device=device.type == "cuda", allow_tqdm=False
        )
        predictor.manual_initialization(network, plans_manager, configuration, None, dataset_json, "", None)
    predictor.network = network  # what it holds is compiled where training compiled it; the noting is not traced
    return predictor
