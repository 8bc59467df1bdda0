"""What runs a network: one interface for every runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from nnunet_3dct.networks.heads import ClassificationHead
from nnunet_3dct.networks.heads.base import WholeCaseHead
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet


class Backend(ABC):
    """One trained network, ready to predict windows.

    Attributes:
        name: ``torch`` or ``openvino``.
        precision: ``f32``, ``bf16`` or ``fp16``, that of the convolutions.
        device: where windows are expected and outputs lie.
        head: of the network.
        windows_at_once: how many windows a call takes at best.
    """

    name: str
    precision: str
    device: torch.device
    head: ClassificationHead
    windows_at_once: int = 1

    @abstractmethod
    def __call__(
        self, windows: Tensor, classify: bool = True, importance: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Predict windows.

        Args:
            windows: ``(B, C, *patch)``, float32, on :attr:`device`.
            classify: whether the class is wanted; without it the head and what it needs are left out.
            importance: ``(B, 1, *patch)``, float32, on :attr:`device`, for a head of whole cases.

        Returns:
            Segmentation logits ``(B, L, *patch)``, which may be overwritten by the next call, and class logits
            ``(B, n)`` in float32, or the features of each window for a head of whole cases, or None
            without ``classify``.

        Raises:
            torch.OutOfMemoryError: the batch is too large for the device.
        """

    def __str__(self) -> str:
        return f"{self.name} on {self.device.type} in {self.precision}"

    def describe(self) -> dict[str, str]:
        """For manifests and reports."""
        return {"backend": self.name, "precision": self.precision, "device": self.device.type}


class Summarizing(torch.nn.Module):
    """The part of a multi-task network that works on feature maps.

    ``forward(x)`` gives the segmentation logits and, if wanted, what the head keeps of the features; :meth:`classify`
    goes on from there. A head that is only known as a whole keeps its class logits.
    """

    def __init__(self, network: MultiTaskUNet) -> None:
        super().__init__()
        self.network = network
        head: ClassificationHead = network.cls_head
        self.whole_head = type(head).forward is not ClassificationHead.forward

    def forward(self, x: Tensor, classify: bool = True, importance: Tensor | None = None) -> tuple[Tensor, ...]:
        if not classify:
            return (self.network(x),)
        logits, features = self.network.segment_with_features(x)
        head = self.network.cls_head
        if isinstance(head, WholeCaseHead):
            summary = head.summarize(features, importance)
        else:
            summary = (head(features),) if self.whole_head else head.summarize(features)
        return (logits, *summary)

    def classify(self, *summary: Tensor) -> Tensor:
        """Class logits ``(B, n)``, or the features of each window for a head of whole cases."""
        head: ClassificationHead = self.network.cls_head
        return (
            summary[0]
            if self.whole_head or isinstance(head, WholeCaseHead)
            else self.network.cls_head.classify(*summary)
        )
