"""``nnUNet3DCT_demo``: the whole workflow on the phantom, in minutes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import NNUNet3DCTError

_ROWS = (
    ("whole-pancreas Dice", "whole_pancreas_dice"),
    ("pancreas Dice", "pancreas_dice"),
    ("lesion Dice", "lesion_dice"),
    ("macro-F1 of the subtype", "macro_f1"),
    ("accuracy of the subtype", "accuracy"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo, draw pictures and print one table."""
    parser = argparse.ArgumentParser(prog="nnUNet3DCT_demo", description=__doc__)
    parser.add_argument("-o", type=Path, default=Path("demo"), help="folder of the demo; default: demo")
    parser.add_argument("--cases", type=int, help="training cases of the phantom")
    parser.add_argument("--val", type=int, help="held-out cases of the phantom")
    parser.add_argument("--seed", type=int, help="of the phantom")
    parser.add_argument("--difficulty", choices=["easy", "hard"])
    parser.add_argument("-device", choices=["cpu", "cuda", "mps"], help="default: cpu")
    args = vars(parser.parse_args(argv))
    folder = args.pop("o").resolve()
    from nnunet_3dct.demo.pictures import draw_cases
    from nnunet_3dct.demo.workflow import CLASS_NAMES, DATASET, DemoPlan, run_demo

    start = time.perf_counter()
    try:
        summary = run_demo(folder, DemoPlan(**{k: v for k, v in args.items() if v is not None}))
    except NNUNet3DCTError as error:
        sys.exit(f"error: {error}")
    raw = folder / "nnUNet_raw" / DATASET
    pictures = draw_cases(
        raw / "imagesVal",
        raw / "labelsVal",
        folder / "predictions",
        raw / "classification.json",
        CLASS_NAMES,
        folder / "pictures",
    )
    print(format_table(summary, time.perf_counter() - start))
    files = {"summary": folder / "summary.json", "predictions": folder / "predictions", "pictures": pictures[-1]}
    files["report"] = folder / "report.html"
    print("\n" + "\n".join(f"{name + ':':13}{path}" for name, path in files.items()))


def format_table(summary: dict[str, Any], total: float) -> str:
    """The closing table: scores, then the time of each step in seconds."""
    low, high = summary["macro_f1_interval"]
    lines = ["", f"{'held-out cases':28}{summary['n_cases']:8d}"]
    for title, key in _ROWS:
        interval = f"   95 % interval {low:.2f} to {high:.2f}" if key == "macro_f1" else ""
        lines.append(f"{title:28}{summary[key]:8.3f}{interval}")
    lines += ["", f"{'step':28}{'seconds':>8}"]
    lines += [f"{name.replace('_', ' '):28}{seconds:8.0f}" for name, seconds in summary["seconds"].items()]
    lines.append(f"{'all steps':28}{total:8.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
