"""Where a network runs, and what to try when its memory is short."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.inference.backends import Backend


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA, else the CPU; MPS, which nobody has tried yet, has to be asked for.

    Raises:
        SettingsError: the device asked for is not there.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = "cuda" if present["cuda"] else "cpu"
    if not present[name]:
        there = ", ".join(kind for kind, is_there in present.items() if is_there)
        raise SettingsError(f"-device {name}: expected a device of this machine, found only {there}.")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


def ways_to_run(backend: Backend, device: torch.device, sum_on_device: bool) -> Iterator[tuple[int, torch.device]]:
    """Passes at once and where logits are summed: first the fastest, at last what takes least memory."""
    at_once = backend.windows_at_once
    if sum_on_device:
        while at_once > 1:
            yield at_once, device
            at_once //= 2
        yield 1, device
        at_once = backend.windows_at_once
    while at_once > 1:
        yield at_once, torch.device("cpu")
        at_once //= 2
    yield 1, torch.device("cpu")
