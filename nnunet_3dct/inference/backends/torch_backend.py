"""PyTorch on CUDA, MPS and the CPU."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.inference.backends.base import Backend, Summarizing
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
WINDOWS_ON_CUDA = 8  # all mirrors of a window; larger batches of usual patches gain nothing


class TorchBackend(Backend):
    """Runs the network as nnU-Net does: autocast on CUDA, fp32 elsewhere unless another precision is asked for.

    Args:
        network: moved to ``device``, in evaluation mode.
        device: any of torch's.
        precision: ``f32``, ``bf16``, ``fp16`` or ``auto`` (fp16 on CUDA, as nnU-Net; else f32).
        compile_network: run it through ``torch.compile``.

    Attributes:
        network: what was given.
        runs: what is called, compiled or not.

    Raises:
        SettingsError: the device does not know the precision.
    """

    name = "torch"

    def __init__(
        self, network: MultiTaskUNet, device: torch.device, precision: str = "auto", compile_network: bool = False
    ) -> None:
        self.device = device
        self.precision = torch_precision(precision, device)
        self.windows_at_once = WINDOWS_ON_CUDA if device.type == "cuda" else 1
        self.network = network.to(device).eval()
        self.head = self.network.cls_head
        self._summarizing = Summarizing(self.network)
        self.runs = torch.compile(self._summarizing) if compile_network else self._summarizing

    @torch.inference_mode()
    def __call__(
        self, windows: Tensor, classify: bool = True, importance: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        with self._autocast():
            logits, *summary = self.runs(windows, classify, importance)
        if not classify:
            return logits, None
        summary = [part.float() for part in summary]
        return logits, self._summarizing.classify(*summary).float()

    def _autocast(self) -> AbstractContextManager:
        if self.precision == "f32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_TYPES[self.precision])


def torch_precision(wanted: str, device: torch.device) -> str:
    """The precision to use on a device.

    Raises:
        SettingsError: it does not know ``wanted``.
    """
    if wanted == "auto":
        return "fp16" if device.type == "cuda" else "f32"
    if wanted == "fp16" and device.type == "cpu":
        raise SettingsError("precision fp16: expected f32 or bf16 with torch on the CPU, found fp16.")
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise SettingsError(
            "precision bf16: expected a GPU that computes in bf16, found one that at most emulates it. Use fp16."
        )
    return wanted
