"""``nnUNet3DCT_evaluate_classification``: class metrics of a prediction folder, with intervals."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.errors import NNUNet3DCTError, OutputError, listing
from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS, METRICS_OF_A_CLASS

METRICS_NAME = "classification_metrics.json"


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
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="a second folder with predictions of the same "
                        "cases: paired differences with intervals, McNemar's test")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON instead of tables")
    return parser


def format_metrics(metrics: dict[str, Any]) -> str:
    """Lay out the numbers with intervals, each class, the confusion matrix, the comparison and the warnings."""
    names = metrics["class_names"]
    parts = [f"{metrics['n_samples']} cases, from {metrics['source']}", _overall(metrics)]
    rows = [
        [name, *(_of_class(metrics, key, k) for k in range(len(names)))] for key, name in METRICS_OF_A_CLASS.items()
    ]
    rows.append(["cases", *(str(sum(row)) for row in metrics["confusion_matrix"])])
    parts.append(table(["one against the rest", *names], rows))
    matrix = [[name, *map(str, row)] for name, row in zip(names, metrics["confusion_matrix"], strict=True)]
    parts.append(table(["true class, predicted", *names], matrix))
    if "comparison" in metrics:
        parts.append(format_comparison(metrics["comparison"]))
    notes = _notes(metrics)
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _overall(metrics: dict[str, Any]) -> str:
    intervals = metrics["confidence_intervals"] or {}
    rows = []
    for key, name in CLASS_METRICS.items():
        row = [name, number(metrics[key])]
        if intervals:
            row.append("{:.3f} to {:.3f}".format(*intervals[key]) if key in intervals else "-")
        rows.append(row)
    return table(["", "value", *(["95 % interval"] if intervals else [])], rows)


def _of_class(metrics: dict[str, Any], key: str, k: int) -> str:
    """Value of a class with its interval."""
    values = metrics[key]
    text = number(values[k] if values else None)
    intervals = (metrics["confidence_intervals_per_class"] or {}).get(key)
    if intervals and intervals[k]:
        text += " ({:.2f}-{:.2f})".format(*intervals[k])
    return text


def format_comparison(comparison: dict[str, Any]) -> str:
    """Lay out a paired comparison of two folders."""
    rows = []
    for key, found in comparison["metrics"].items():
        row = [CLASS_METRICS[key], number(found["first"]), number(found["second"]), f"{found['difference']:+.3f}"]
        rows.append([*row, "{:+.3f} to {:+.3f}".format(*found["interval"]) if found["interval"] else "-"])
    test = comparison["mcnemar"]
    return "\n".join(
        [
            f"first: {comparison['first']}, second: {comparison['second']}",
            table(["", "first", "second", "first - second", "95 % interval"], rows),
            f"only the first is right in {test['only_first_correct']} cases, only the second in "
            f"{test['only_second_correct']}; McNemar's exact test for equal accuracy: p = {test['p_value']:.3g}",
        ]
    )


def _notes(metrics: dict[str, Any]) -> list[str]:
    notes = []
    if metrics["auc_undefined_reason"]:
        notes.append(f"note: no AUC: {metrics['auc_undefined_reason']}")
    excluded = metrics["excluded_unknown_label"]
    if excluded:
        notes.append(f"note: left out, label -1 (unknown): {len(excluded)} ({listing(excluded)})")
    missing = metrics["labels_without_prediction"]
    if missing:
        notes.append(f"note: cases of the labels file without a prediction: {len(missing)} ({listing(missing, 3)})")
    return notes + [f"warning: {warning}" for warning in metrics["warnings"]]


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, write the metrics and print them; exit with code 1 and one message if that is impossible."""
    args = build_parser().parse_args(argv)
    # imported here so that --help does not wait for scikit-learn
    from nnunet_3dct.evaluation.classification import evaluate_classification
    from nnunet_3dct.evaluation.comparison import compare_classifications
    from nnunet_3dct.formats.atomic import to_json, write_json

    output = args.o or args.pred_folder / METRICS_NAME
    options = {"resamples": args.bootstrap, "seed": args.seed}
    try:
        metrics = evaluate_classification(args.pred_folder, args.labels, args.class_names, **options)
        if args.compare:
            metrics["comparison"] = compare_classifications(
                args.pred_folder, args.compare, args.labels, args.class_names, **options
            )
        write_json(metrics, output)
    except NNUNet3DCTError as error:
        advice = " Give another file with -o." if isinstance(error, OutputError) else ""
        print(f"error: {error}{advice}", file=sys.stderr)
        sys.exit(1)
    if args.json:
        print(to_json(metrics))
        return
    print(format_metrics(metrics))
    print(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
