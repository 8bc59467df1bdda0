"""One forward pass of the prediction benchmark's network in each runtime, beside the machine's matrix products.

What the network's own arithmetic leaves a faster predictor to gain: a runtime that works at the rate of the matrix
products has reached what the machine computes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from prediction_model import CONFIGURATION, DATASET, PLANS, TRAINER, set_folders

RUNTIMES = (("torch", "f32"), ("openvino", "f32"), ("openvino", "bf16"))
SIZE = 4096


def main() -> None:
    """Measure in turns and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of benchmarks/predict.py, with its network")
    parser.add_argument("--rounds", type=int, default=3, help="Default: %(default)s")
    args = parser.parse_args()
    set_folders(args.work)
    from nnunet_3dct.inference.model import TrainedModel
    from nnunet_3dct.inference.options import PredictionOptions

    tasks: dict[str, Callable[[], Any]] = {}
    model = args.work / "results" / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    for backend, precision in RUNTIMES:
        predictor = TrainedModel(model, [0], options=PredictionOptions("cpu", backend=backend, precision=precision))
        window = torch.randn(1, 1, *predictor.configuration_manager.patch_size)
        tasks[f"a pass, {backend} {precision} [s]"] = lambda run=predictor.backends[0], x=window: run(x, False)
    for kind in (torch.float32, torch.bfloat16):
        matrix = torch.randn(SIZE, SIZE).to(kind)
        tasks[f"matrix product, {kind} [GFLOP/s]"] = lambda matrix=matrix: matrix @ matrix
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(args.rounds + 1):
        for name, run in tasks.items():
            start = time.perf_counter()
            run()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    print("| what | median |\n| --- | --- |")
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"| {name} | {median:.2f} |" if "[s]" in name else f"| {name} | {2 * SIZE**3 / median / 1e9:.0f} |")


if __name__ == "__main__":
    main()
