"""Shared by the tests of ``nnUNet3DCT_predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunet_3dct.cli import predict
from tests import toy

SUFFIX = "_classification.json"


def arguments(images: Path, output: Path, *flags: str) -> list[str]:
    """Command line for the toy model on the CPU; a flag given twice counts the last time."""
    return [
        *(
            "-i",
            str(images),
            "-o",
            str(output),
            "-d",
            str(toy.DATASET_ID),
            "-p",
            toy.PLANS,
            "-c",
            "3d_fullres",
        ),
        *("-device", "cpu", "--backend", "torch", "-npp", "1", "-nps", "1", "--disable_progress_bar", *flags),
    ]


def run(images: Path, output: Path, *flags: str) -> None:
    predict.main(arguments(images, output, *flags))


def reports(folder: Path) -> dict[str, dict[str, Any]]:
    """Case -> content of its class file."""
    return {p.name.removesuffix(SUFFIX): json.loads(p.read_text()) for p in sorted(folder.glob(f"*{SUFFIX}"))}
