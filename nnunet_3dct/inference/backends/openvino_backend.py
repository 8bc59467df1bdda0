"""OpenVINO on the CPU: the same network, two to five times faster than in PyTorch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import inspect
import math
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.inference.backends.base import Backend, Summarizing
from nnunet_3dct.networks.heads.base import WholeCaseHead
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.runtime import CACHE_VARIABLE, Message, cache_folder

KEPT_MODELS = 20
LARGE_NORM = 20_000  # voxels
DAY = 24 * 3600  # seconds
FORMAT = 2  # of what is cached; raise it when Summarizing changes what it computes


class OpenVINOBackend(Backend):
    """Runs the network in OpenVINO; what the head makes of the pooled features stays in PyTorch.

    The converted model is cached by the network's weights, see :func:`cache_folder`.

    Args:
        network: in evaluation mode, without deep supervision, on the CPU.
        window_shape: ``(C, *patch)``; the model is compiled for it.
        precision: ``f32``, ``bf16`` or ``auto`` (bf16 where the CPU computes in it, else f32).
        on_message: told before the conversion, which takes up to a minute.

    Raises:
        SettingsError: OpenVINO is not installed, or the CPU does not know the precision.
    """

    name = "openvino"
    device = torch.device("cpu")

    def __init__(
        self,
        network: MultiTaskUNet,
        window_shape: Sequence[int],
        precision: str = "auto",
        on_message: Message | None = None,
    ) -> None:
        if not is_installed():
            raise SettingsError("backend openvino: expected the package openvino, found none. pip install openvino")
        import openvino

        core = openvino.Core()
        self.precision = openvino_precision(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self.head = network.cls_head
        self._network = Summarizing(network.eval())
        self._model = _converted(core, self._network, window_shape, on_message)
        if self.precision == "f32":
            self._model = precise_instance_norms(self._model)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp16": "f16"}.get(self.precision, self.precision),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compile = functools.partial(core.compile_model, device_name="CPU", config=settings)
        self._requests: dict[bool, Any] = {True: self._compile(self._model).create_infer_request()}

    @torch.inference_mode()
    def __call__(
        self, windows: Tensor, classify: bool = True, importance: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        assert len(windows) == 1, "the model is compiled for one window"
        request = self._request(classify)
        inputs = [windows] if importance is None or not classify else [windows, importance]
        found = request.infer([tensor.contiguous().numpy() for tensor in inputs], share_inputs=True, share_outputs=True)
        logits, *summary = (torch.from_numpy(output) for output in found.to_tuple())
        return logits, self._network.classify(*summary) if classify else None

    def _request(self, classify: bool) -> Any:
        """The whole model, or at its first use a second one that ends at the segmentation logits."""
        if classify not in self._requests:
            self._requests[classify] = self._compile(_logits_only(self._model)).create_infer_request()
        return self._requests[classify]


def is_installed() -> bool:
    """Whether OpenVINO can be imported; does not import it."""
    return importlib.util.find_spec("openvino") is not None


def openvino_precision(wanted: str, capabilities: Sequence[str]) -> str:
    """The precision to use on a CPU with these capabilities.

    Raises:
        SettingsError: it does not compute in ``wanted``.
    """
    known = {"f32": "FP32", "bf16": "BF16", "fp16": "FP16"}
    if wanted == "auto":
        return "bf16" if "BF16" in capabilities else "f32"
    if known[wanted] not in capabilities:
        there = ", ".join(name for name, capability in known.items() if capability in capabilities)
        raise SettingsError(f"precision {wanted}: expected what this CPU computes in ({there}), found {wanted}.")
    return wanted


def _converted(core: Any, network: Summarizing, window_shape: Sequence[int], on_message: Message | None = None) -> Any:
    """The model from the cache, or converted and put there; a cache that cannot be written is done without."""
    folder = cache_folder() / _key(network, window_shape)
    try:
        if (folder / "model.xml").is_file():
            os.utime(folder)
            return core.read_model(folder / "model.xml")
    except (OSError, RuntimeError):
        shutil.rmtree(folder, ignore_errors=True)
    if on_message is not None:
        on_message(f"First run of this model on a CPU: converting it for OpenVINO, to be kept in {folder.parent}.")
    model = _convert(network, window_shape)
    try:
        _store(model, folder)
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"The converted model could not be kept in {folder.parent} ({error}); the next run converts it again. "
            f"Set {CACHE_VARIABLE} to a folder that can be written.",
            stacklevel=2,
        )
    return model


def _convert(network: Summarizing, window_shape: Sequence[int]) -> Any:
    import openvino

    example = [torch.zeros(1, *window_shape)]
    traceable: torch.nn.Module = network
    if isinstance(network.network.cls_head, WholeCaseHead):
        traceable = _WithImportance(network)
        example.append(torch.ones(1, 1, *window_shape[1:]))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing takes shapes for constants, which they are here
        traced = torch.jit.trace(traceable, tuple(example), check_trace=False)
        return openvino.convert_model(traced, input=[list(tensor.shape) for tensor in example])


class _WithImportance(torch.nn.Module):
    """Tracing takes arguments by their place."""

    def __init__(self, network: Summarizing) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, importance: Tensor) -> tuple[Tensor, ...]:
        return self.network(x, True, importance)


def precise_instance_norms(model: Any) -> Any:
    """Replace the instance norms over many voxels, whose sums OpenVINO 2026.4 takes one after the other in f32.

    Over a million voxels that leaves a relative error of 1e-4, a thousand times that of a convolution, which decides
    ties. Here averages over small blocks are averaged; it takes some 4 % more time. Sizes that are no multiples of
    eight stay as they are; nnU-Net's patches have none where they are large.

    Args:
        model: changed in place.

    Returns:
        ``model``.
    """
    for node in model.get_ops():
        if node.get_type_name() == "MVN" and _is_large_instance_norm(node):
            node.output(0).replace(_normalized(node.input_value(0), node.get_attributes()["eps"]))
    model.validate_nodes_and_infer_types()
    return model


def _is_large_instance_norm(node: Any) -> bool:
    axes, shape = node.input_value(1).get_node(), node.get_output_partial_shape(0)
    settings = node.get_attributes()
    if shape.is_dynamic or axes.get_type_name() != "Constant" or not settings["normalize_variance"]:
        return False
    dims = list(shape.to_shape())
    over = sorted(int(axis) % len(dims) for axis in axes.get_data().ravel())
    return over == list(range(2, len(dims))) and math.prod(dims[2:]) >= LARGE_NORM and math.prod(_block(dims)) >= 64


def _block(dims: Sequence[int]) -> list[int]:
    """At most 16 by 16 voxels in the plane that tile ``(B, C, ..., Y, X)`` without remainder."""
    return [1] * (len(dims) - 4) + [math.gcd(size, 16) for size in dims[-2:]]


def _normalized(x: Any, eps: float) -> Any:
    from openvino import opset13 as ops

    dims = list(x.get_partial_shape().to_shape())
    block, none = _block(dims), [0] * (len(dims) - 2)

    def mean(values: Any) -> Any:
        blocks = ops.avg_pool(values, block, none, none, block, exclude_pad=True)
        return ops.reduce_mean(blocks, np.arange(2, len(dims)), keep_dims=True)

    centred = ops.subtract(x, mean(x))
    variance = mean(ops.multiply(centred, centred))
    return ops.divide(centred, ops.sqrt(ops.add(variance, np.float32(eps)))).output(0)


def _logits_only(model: Any) -> Any:
    import openvino

    model = model.clone()
    return openvino.Model([model.output(0)], model.get_parameters()[:1])


def _store(model: Any, folder: Path) -> None:
    """Write the model under a temporary name and rename it; drop the models that were not used for longest."""
    import openvino

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        openvino.save_model(model, temporary / "model.xml", compress_to_fp16=False)
        if not (folder / "model.xml").is_file():  # what a killed removal left
            shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for left in folder.parent.glob(".converting-*"):  # by a killed conversion; one that runs is younger
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left, ignore_errors=True)
    kept = sorted(folder.parent.glob("[!.]*/model.xml"), key=lambda f: f.parent.stat().st_mtime)
    for old in kept[:-KEPT_MODELS]:
        shutil.rmtree(old.parent, ignore_errors=True)


def _key(network: Summarizing, window_shape: Sequence[int]) -> str:
    """Fingerprint of weights, architecture, window and versions; of a head of whole cases only target and encoder.

    What such a head makes of the features is not in the graph: a head that is fitted anew needs no new conversion.
    """
    import openvino

    digest = hashlib.sha256(repr((FORMAT, openvino.__version__, torch.__version__, tuple(window_shape))).encode())
    head = network.network.cls_head
    state = network.state_dict()
    if isinstance(head, WholeCaseHead):
        parts = (network.network.encoder, network.network.decoder, head.name, head.target_channels, head.regions)
        digest.update(repr(parts).encode())
        if head.encoder is not None:  # runs in the graph
            digest.update(repr(head.encoder).encode())
        state = {n: tensor for n, tensor in state.items() if "cls_head." not in n or "cls_head.encoder." in n}
    else:
        digest.update(repr(network).encode())
        digest.update(repr((head.name, head.num_classes, sorted(head.options.items()))).encode())
    if not type(head).__module__.startswith("nnunet_3dct."):  # FORMAT stands for the code of ours
        with contextlib.suppress(OSError, TypeError):
            digest.update(inspect.getsource(inspect.getmodule(type(head)) or type(head)).encode())
    for name, tensor in state.items():
        digest.update(repr((name, tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()[:32]
