"""What is installed on the machine that a training would run on, and whether its graphics cards can be used."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

import nnunet_3dct
from nnunet_3dct.data.installation import EXT_TRAINERS, Finding, NNUNetLocation, package_version
from nnunet_3dct.data.resources import (
    GIB,
    check_disk,
    check_memory,
    check_shared_memory,
    check_threads,
    check_writable,
)

PACKAGES = ("nnunetv2", "torch", "torchvision", "numpy", "SimpleITK", "nibabel", "monai", "openvino")


def check_machine(location: NNUNetLocation, environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Everything about the machine, its resources among it.

    Args:
        location: of nnU-Net, from :func:`~nnunet_3dct.data.installation.locate_nnunet`.
        environ: defaults to ``os.environ``.
    """
    environ = os.environ if environ is None else environ
    return [
        check_versions(),
        check_location(location),
        check_cuda(),
        check_memory(),
        check_shared_memory(),
        *check_disk(environ),
        *check_writable(environ),
        *check_threads(environ),
    ]


def check_versions() -> Finding:
    """What is installed; to be copied into a report of a fault."""
    packages = ", ".join(f"{name} {package_version(name)}" for name in PACKAGES)
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("versions", True, f"nnunet-3dct {nnunet_3dct.__version__}, {packages}, {python}")


def check_location(location: NNUNetLocation) -> Finding:
    """Which nnU-Net Python takes, and copies that hide it or that it hides."""
    name = "nnU-Net"
    if location.package is None:
        return Finding(
            name, False, "expected the package nnunetv2, found none. Run `pip install 'nnunetv2>=2.8.1,<2.9'`."
        )
    kind = " (editable install)" if location.editable else ""
    if location.copies:
        return Finding(
            name,
            True,
            f"{location.package}{kind}; other folders named nnunetv2 are on Python's path: "
            f"{', '.join(map(str, location.copies))}. Work outside of a source tree of nnU-Net or of this project, so "
            "that "
            "the installed one is always taken.",
            warning=True,
        )
    hint = f"; set nnUNet_extTrainer to {EXT_TRAINERS} if its trainer search misses ours" if location.editable else ""
    return Finding(name, True, f"{location.package}{kind}{hint}")


def check_cuda() -> Finding:
    """Whether torch can use the graphics cards of this machine."""
    name = "CUDA"
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken build fails in many ways
        return Finding(name, False, f"torch cannot be imported: {error}.")
    if torch.cuda.is_available():
        cards = []
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            cards.append(f"{torch.cuda.get_device_name(index)} ({free / GIB:.1f} of {total / GIB:.1f} GiB free)")
        return Finding(name, True, f"{torch.version.cuda}: {', '.join(cards)}")
    if not _has_nvidia_card():
        return Finding(name, True, "no card of NVIDIA on this machine", warning=False)
    if torch.version.cuda is None:
        message = f"there is a card of NVIDIA, but torch {torch.__version__} is a build for the CPU. "
        return Finding(name, False, f"{message}Install a build with CUDA, as pytorch.org tells for your driver.")
    return Finding(
        name,
        False,
        f"there is a card of NVIDIA, but torch {torch.__version__}, built for CUDA {torch.version.cuda}, cannot use "
        "it. "
        "Compare with the version that nvidia-smi prints: the driver may be older, or a container may not have the "
        "card.",
    )


def _has_nvidia_card() -> bool:
    return Path("/proc/driver/nvidia/gpus").is_dir() or shutil.which("nvidia-smi") is not None
