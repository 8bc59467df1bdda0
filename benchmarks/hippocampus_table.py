"""Gather what benchmarks/hippocampus.sh measured into results.json and print it as Markdown tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nnunet_3dct.files import write_json


def main() -> None:
    out = Path(sys.argv[1])
    model = "Dataset004_Hippocampus/{}__nnUNetPlansTiny__3d_fullres/fold_0/validation"
    summaries = {
        "stage 1 (600 iterations)": out / "results" / model.format("nnUNetTrainer_Stage1") / "summary.json",
        "stage 1 + 2 (600 + 600)": out / "predictions/summary.json",
        "stock (1200 iterations)": out / "stock" / model.format("nnUNetTrainer_Stage1") / "summary.json",
    }
    dice = {name: _dice(json.loads(path.read_text())) for name, path in summaries.items()}
    classes = json.loads((out / "predictions/classification_metrics.json").read_text())
    organ = json.loads((out / "predictions/whole_pancreas_summary.json").read_text())
    seconds = {k: int(v) for k, v in (line.split() for line in (out / "seconds").read_text().splitlines())}
    results = {"dice": dice, "whole_organ": organ["mean"], "classification": classes, "seconds": seconds}
    write_json(results, out / "results.json")

    print("\n| training | Dice anterior | Dice posterior | mean |\n| --- | --- | --- | --- |")
    for name, values in dice.items():
        print(f"| {name} | {values['1']:.3f} | {values['2']:.3f} | {values['mean']:.3f} |")
    print("\n| class metric | value | 95 % interval |\n| --- | --- | --- |")
    for name, (low, high) in classes["confidence_intervals"].items():
        print(f"| {name} | {classes[name]:.3f} | {low:.2f} to {high:.2f} |")
    print(f"\nconfusion matrix {classes['confusion_matrix']}, seconds {seconds}")


def _dice(summary: dict[str, Any]) -> dict[str, float]:
    return {
        **{label: metrics["Dice"] for label, metrics in summary["mean"].items()},
        "mean": summary["foreground_mean"]["Dice"],
    }


if __name__ == "__main__":
    main()
