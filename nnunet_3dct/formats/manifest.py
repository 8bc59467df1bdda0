"""The run manifest: what ran, with which versions and settings, how long, and what failed."""

from __future__ import annotations

import argparse
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_3dct import __version__
from nnunet_3dct.formats.atomic import write_json

if TYPE_CHECKING:
    from nnunet_3dct.inference.folder import Outcome
    from nnunet_3dct.inference.model import MultiTaskPredictor


def write_manifest(
    args: argparse.Namespace,
    predictor: MultiTaskPredictor,
    outcome: Outcome,
    produced_by: dict[str, Any],
    cases: list[str],
    seconds_loading: float,
    start: float,
) -> None:
    """Write ``prediction_manifest.json`` and, as stock does, ``dataset.json`` and ``plans.json``.

    A part of a split run writes ``prediction_manifest_part<I>of<N>.json``. Times are in seconds.
    """
    part = "" if args.num_parts == 1 else f"_part{args.part_id}of{args.num_parts}"
    manifest = {
        "versions": {
            "nnunet_3dct": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("nnunetv2", "torch", "numpy", "SimpleITK")},
        },
        "device": str(predictor.device),
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "head": predictor.head_config,
        "produced_by": produced_by,
        "cases": cases,
        "failed": outcome.failed,
        "review": outcome.review,
        "seconds": {
            "loading": seconds_loading,
            "total": time.perf_counter() - start,
            "per_case": outcome.seconds,
        },
    }
    write_json(manifest, args.o / f"prediction_manifest{part}.json")
    write_json(predictor.dataset_json, args.o / "dataset.json")
    write_json(predictor.plans_manager.plans, args.o / "plans.json")
