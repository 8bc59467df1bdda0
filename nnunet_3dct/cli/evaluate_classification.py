"""``nnUNet3DCT_evaluate_classification``: class metrics of a prediction folder, with intervals."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import NNUNet3DCTError, OutputError, listing

METRICS_NAME = "classification_metrics.json"
HEADLINES = ("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "auc_macro")


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(description="Compares predicted classes with the class labels of the dataset.")
    parser.add_argument("pred_folder", type=Path, help="folder with <case>_classification.json or subtype_*.csv")
    parser.add_argument("labels", type=Path, help="classification.json (or CSV with the header Names,Subtype)")
    parser.add_argument("--class-names", nargs="+", metavar="NAME", help="names of the classes 0, 1, ...")
    parser.add_argument("-o", type=Path, help=f"output file. Default: pred_folder/{METRICS_NAME}")
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=2000,
        help="resamples for the intervals, 0 for none. Default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples. Default: %(default)s")
    return parser


def format_metrics(metrics: dict[str, Any]) -> str:
    """Lay out headline numbers with intervals, each class, the confusion matrix and the warnings."""
    names = metrics["class_names"]
    intervals = metrics["confidence_intervals"] or {}
    width = max(len("balanced accuracy"), *(len(name) for name in names))
    lines = [f"{metrics['n_samples']} cases, from {metrics['source']}"]

    lines += ["", f"{'':{width}}  value" + ("   95 % interval" if intervals else "")]
    for key in HEADLINES:
        line = f"{key.replace('_', ' '):{width}}  {_number(metrics[key])}"
        if key in intervals:
            low, high = intervals[key]
            line += f"   {low:.3f} to {high:.3f}"
        lines.append(line)

    lines += ["", f"{'class':{width}}     F1   precision   recall   cases"]
    for k, name in enumerate(names):
        f1, precision, recall = (_number(metrics[f"{key}_per_class"][k]) for key in ("f1", "precision", "recall"))
        lines.append(f"{name:{width}}  {f1}       {precision}    {recall}   {sum(metrics['confusion_matrix'][k]):5}")

    cell = max(5, *(len(name) for name in names))
    lines += [
        "",
        f"{'truth (rows), predicted':{max(width, 23)}}  " + "  ".join(f"{name:>{cell}}" for name in names),
    ]
    for name, row in zip(names, metrics["confusion_matrix"], strict=True):
        lines.append(f"{name:{max(width, 23)}}  " + "  ".join(f"{count:{cell}}" for count in row))

    if metrics["calibration"]:
        brier, ece = (
            metrics["calibration"]["brier_score"],
            metrics["calibration"]["expected_calibration_error"],
        )
        lines += ["", f"Brier score {brier:.3f} (0 best, 2 worst), expected calibration error {ece:.3f}"]
    return "\n".join([*lines, *_notes(metrics)])


def _notes(metrics: dict[str, Any]) -> list[str]:
    notes = []
    if metrics["auc_undefined_reason"]:
        notes.append(f"note: no AUC: {metrics['auc_undefined_reason']}")
    excluded = metrics["excluded_unknown_label"]
    if excluded:
        notes.append(f"note: left out, label -1 (unknown): {len(excluded)} ({listing(excluded)})")
    if metrics["n_labels_without_prediction"]:
        notes.append(f"note: cases of the labels file without a prediction: {metrics['n_labels_without_prediction']}")
    notes += [f"warning: {warning}" for warning in metrics["warnings"]]
    return ["", *notes] if notes else []


def _number(value: float | None) -> str:
    return "    -" if value is None else f"{value:.3f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, write the metrics and print them; exit with code 1 and one message if that is impossible."""
    args = build_parser().parse_args(argv)
    # imported here so that --help does not wait for scikit-learn
    from nnunet_3dct.evaluation.classification import evaluate_classification
    from nnunet_3dct.files import write_json

    output = args.o or args.pred_folder / METRICS_NAME
    try:
        metrics = evaluate_classification(
            args.pred_folder, args.labels, args.class_names, resamples=args.bootstrap, seed=args.seed
        )
        write_json(metrics, output)
    except NNUNet3DCTError as error:
        advice = " Give another file with -o." if isinstance(error, OutputError) else ""
        print(f"error: {error}{advice}", file=sys.stderr)
        sys.exit(1)
    print(format_metrics(metrics))
    print(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
