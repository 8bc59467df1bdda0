"""The machine: devices, precisions, what runs a network, memory. Names are checked here for Python and commands alike.

Importing this module brings in no torch: the commands check their arguments before they load anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_3dct.errors import SettingsError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cuda", "cpu", "mps")
BACKENDS = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "f32", "bf16", "fp16")
MIRRORING = ("none", "pair", "flips", "full")
CACHE_VARIABLE = "NNUNET3DCT_CACHE"

Message = Callable[[str], None]  # what a caller does with a line that a person may want to read

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_BLOCK = 1 << 30


def check_choice(argument: str, value: object, choices: Collection[str]) -> None:
    """Raise SettingsError unless ``value`` is one of ``choices``; the message lists them."""
    if value not in choices:
        raise SettingsError(f"{argument}: expected {', '.join(choices)}; found {value!r}.")


def check_number(argument: str, value: object, expected: str, holds: Callable[[float], bool]) -> None:
    """Raise SettingsError unless ``value`` is a finite number for which ``holds``, which ``expected`` describes."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and holds(value)):  # type: ignore[arg-type]
        raise SettingsError(f"{argument}: expected {expected}, found {value!r}.")


def check_device_name(name: str) -> None:
    """Raise SettingsError unless ``name`` is one of :data:`DEVICES` or ``cuda:N``."""
    if not re.fullmatch(r"cuda:\d+", str(name)):
        check_choice("device", name, (*DEVICES, "cuda:0, cuda:1, ..."))


def choose_device(name: str) -> torch.device:
    """The device of that name.

    Args:
        name: ``cuda``, ``cuda:N``, ``cpu`` or ``mps``. ``auto`` takes CUDA, else the CPU; MPS, which nobody has tried
            yet, has to be asked for.

    Raises:
        SettingsError: no such name, or the device is not there.
    """
    check_device_name(name)
    if name == "mps":
        allow_cpu_for_mps()
    import torch

    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    kind, _, number = name.partition(":")
    if name == "auto":
        kind = "cuda" if present["cuda"] else "cpu"
    if not present[kind]:
        there = ", ".join(other for other, is_there in present.items() if is_there)
        raise SettingsError(f"device {name}: expected a device of this machine, found only {there}.")
    if kind != "cuda":
        return torch.device(kind)
    index, count = int(number or 0), torch.cuda.device_count()
    if index >= count:
        raise SettingsError(f"device {name}: expected a card from cuda:0 to cuda:{count - 1}, found no such card.")
    return torch.device("cuda", index)


@contextlib.contextmanager
def prediction_switches(device: torch.device, precision: str) -> Iterator[None]:
    """Set torch's global switches for a prediction and put them back as they were.

    On CUDA cuDNN looks for its fastest algorithm, unless the caller asked for deterministic ones, and under ``f32``
    convolutions and products keep the precision that the name promises (TensorFloat keeps ten bits). The switches are
    those of the process: what another thread computes meanwhile is computed under them.

    Args:
        device: where the network runs.
        precision: of :data:`PRECISIONS`.
    """
    if device.type != "cuda":
        yield
        return
    from torch.backends import cuda, cudnn

    before = cudnn.benchmark, cudnn.allow_tf32, cuda.matmul.allow_tf32
    try:
        cudnn.benchmark = not cudnn.deterministic
        if precision == "f32":
            cudnn.allow_tf32 = cuda.matmul.allow_tf32 = False
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, cuda.matmul.allow_tf32 = before


def allow_cpu_for_mps() -> None:
    """Let the CPU compute what MPS lacks, such as 3D pooling; has to come before torch is imported."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def keep_freed_memory() -> bool:
    """Let glibc reuse large blocks instead of giving each back to the system.

    Every layer of a network on the CPU allocates its output anew. By default glibc maps such blocks from the system
    and unmaps them right after, and the system fills each with zeros again, which can take as long as the layer. The
    process keeps its peak of memory afterwards. Threads other than the main one gain little: their heaps are small.

    The setting is one of the whole process and cannot be read back or undone. So the commands and trainers call this,
    and the Python interface does not; a program of one's own that predicts on the CPU may call it once.

    Returns:
        Whether it was done; False where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    done = mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK - 1)
    return bool(done)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or of a library that it calls (cuBLAS, cuDNN, Metal) means that memory ran out.

    Only torch's own allocator raises ``torch.OutOfMemoryError``. cuDNN that finds no room for any of its algorithms
    says that it is "unable to find an engine".
    """
    text = str(error).lower()
    signs = ("out of memory", "alloc_failed", "unable to find an engine")
    return type(error).__name__ == "OutOfMemoryError" or any(sign in text for sign in signs)


def is_device_lost(error: BaseException) -> bool:
    """Whether an error of CUDA leaves the process without its device: every later call fails, whatever it does."""
    text = str(error).lower()
    signs = (
        "device-side assert", "unspecified launch failure", "illegal memory access", "illegal instruction",
        "misaligned address", "uncorrectable ecc error", "invalid program counter", "hardware stack error",
    )  # fmt: skip
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def cache_folder() -> Path:
    """Where converted models are kept: ``NNUNET3DCT_CACHE``, else ``nnunet_3dct`` in the user's cache folder."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nnunet_3dct"
