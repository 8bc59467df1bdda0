"""Resampling of a whole CT: nnU-Net's function (SciPy, order 3) and ours, in turns, in one process."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from nnunet_3dct.inference.resampling import plan_resampling, resample

SIZES = {
    "whole CT, order 3": ((300, 512, 512), (375, 526, 526), (1.25, 0.75, 0.75), (1.0, 0.73, 0.73), 3),
    "crop, order 3": ((59, 118, 181), (61, 120, 180), (2.0, 0.73, 0.73), (1.95, 0.72, 0.73), 3),
    "crop, order 3, slice by slice": ((20, 118, 181), (39, 120, 180), (4.0, 0.73, 0.73), (2.0, 0.72, 0.73), 3),
    "whole CT, order 1": ((300, 512, 512), (375, 526, 526), (1.25, 0.75, 0.75), (1.0, 0.73, 0.73), 1),
}


def main() -> None:
    """Measure each size, print a Markdown table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", type=Path, metavar="FILE", help="write the figures as JSON")
    args = parser.parse_args()
    found = {}
    print("| what | nnU-Net [s] | ours [s] | times faster | largest difference [SD] |\n| --- | --- | --- | --- | --- |")
    for name, (old, new, spacing, new_spacing, order) in SIZES.items():
        image = np.random.default_rng(0).normal(size=(1, *old)).astype(np.float32)
        theirs, ours, difference = [], [], 0.0
        for _ in range(args.rounds):
            start = time.perf_counter()
            expected = resample_data_or_seg_to_shape(
                image, new, spacing, new_spacing, order=order, order_z=0, force_separate_z=None
            )
            theirs.append(time.perf_counter() - start)
            start = time.perf_counter()
            plan = plan_resampling(old, new, spacing, new_spacing, order)
            result = resample(torch.from_numpy(image).to(args.device), plan).cpu().numpy()
            ours.append(time.perf_counter() - start)
            difference = max(difference, float(np.abs(np.asarray(expected) - result).max()))
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        found[name] = {"nnunet": theirs, "ours": ours, "ratio": ratio, "largest_difference": difference}
        times = f"{statistics.median(theirs):.2f} | {statistics.median(ours):.3f}"
        print(f"| {name} | {times} | {ratio:.0f} | {difference:.1e} |")
        sys.stdout.flush()
    if args.o:
        args.o.write_text(json.dumps({"device": args.device, "torch": torch.__version__, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
