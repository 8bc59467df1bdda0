"""Runtimes for the network, and the choice among them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.inference.backends.base import Backend
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.runtime import BACKENDS, PRECISIONS, Message, check_choice

__all__ = ["Backend", "make_backend"]


def make_backend(
    network: MultiTaskUNet,
    window_shape: Sequence[int],
    device: torch.device,
    name: str = "auto",
    precision: str = "auto",
    on_message: Message | None = None,
) -> Backend:
    """A network in the runtime asked for.

    Args:
        network: trained, without deep supervision.
        window_shape: ``(C, *patch)``.
        device: where it runs.
        name: ``torch``, ``openvino`` or ``auto``, OpenVINO for the CPU where it is installed, else PyTorch.
        precision: ``f32``, ``bf16``, ``fp16`` or ``auto``, the fastest that keeps the labels (bf16 in OpenVINO on
            CPUs that compute in it, fp16 on CUDA, else f32).
        on_message: told before a conversion, which takes up to a minute.

    Raises:
        SettingsError: no such runtime here, or it does not run on the device or in the precision.
    """
    check_choice("backend", name, BACKENDS)
    check_choice("precision", precision, PRECISIONS)
    # imported on demand: each brings its runtime
    from nnunet_3dct.inference.backends import openvino_backend

    if name == "openvino" and device.type != "cpu":
        raise SettingsError(f"backend openvino: expected the device cpu, found {device.type}. Use the backend torch.")
    if name == "openvino" or (name == "auto" and device.type == "cpu" and openvino_backend.is_installed()):
        try:
            return openvino_backend.OpenVINOBackend(network, window_shape, precision, on_message)
        except SettingsError:
            raise
        except Exception as error:
            if name == "openvino":
                raise SettingsError(
                    f"backend openvino: the network could not be converted ({_first_line(error)}). "
                    "Use the backend torch."
                ) from error
            warnings.warn(f"OpenVINO cannot run this network ({_first_line(error)}); PyTorch does.", stacklevel=2)
    from nnunet_3dct.inference.backends.torch_backend import TorchBackend

    compile_network = os.environ.get("nnUNet_compile", "").lower() in ("true", "1", "t")
    return TorchBackend(network, device, precision, compile_network)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
