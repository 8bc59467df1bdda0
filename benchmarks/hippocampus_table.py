"""Gather what benchmarks/hippocampus.sh measured into results.json and print it as Markdown tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nnunet_3dct.formats.atomic import write_json

HEADS = ("nnUNetTrainer_CLSHeadSumFT", "nnUNetTrainer_CLSHeadLesion")


def main() -> None:
    """Read the folder that hippocampus.sh filled."""
    out = Path(sys.argv[1])
    validation = (
        "Dataset004_Hippocampus/nnUNetTrainer_Stage1__nnUNetPlansTiny__3d_fullres/fold_0/validation/summary.json"
    )
    summaries = {
        "stage 1": out / "results" / validation,
        "stock, both budgets": out / "stock" / validation,
        **{f"stage 2, {head}": out / f"predictions_{head}" / "summary.json" for head in HEADS},
    }
    dice = {name: _dice(json.loads(path.read_text())) for name, path in summaries.items()}
    heads = {}
    for head in HEADS:
        folder = out / f"predictions_{head}"
        organ = json.loads((folder / "whole_pancreas_summary.json").read_text())
        heads[head] = {
            "whole_organ_dice": organ["mean"]["whole_pancreas"]["Dice"],
            "classification": json.loads((folder / "classification_metrics.json").read_text()),
        }
    seconds = {k: int(v) for k, v in (line.split() for line in (out / "seconds").read_text().splitlines())}
    write_json({"dice": dice, "heads": heads, "seconds": seconds}, out / "results.json")

    print("\n| training | Dice anterior | Dice posterior | mean |\n| --- | --- | --- | --- |")
    for name, values in dice.items():
        print(f"| {name} | {values['1']:.3f} | {values['2']:.3f} | {values['mean']:.3f} |")
    print("\n| head | metric | value | 95 % interval |\n| --- | --- | --- | --- |")
    for head, result in heads.items():
        classes: Any = result["classification"]
        for name, (low, high) in classes["confidence_intervals"].items():
            print(f"| {head} | {name} | {classes[name]:.3f} | {low:.2f} to {high:.2f} |")
        print(f"| {head} | whole-organ Dice | {result['whole_organ_dice']:.3f} | |")
        print(f"{head}: confusion matrix {classes['confusion_matrix']}")
    print(f"\nseconds {seconds}")


def _dice(summary: dict[str, Any]) -> dict[str, float]:
    return {
        **{label: metrics["Dice"] for label, metrics in summary["mean"].items()},
        "mean": summary["foreground_mean"]["Dice"],
    }


if __name__ == "__main__":
    main()
