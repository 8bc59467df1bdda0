"""``nnUNet3DCT_evaluate_classification``: class metrics of a prediction folder, with intervals."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_3dct.cli import evaluation_flags
from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.errors import listing
from nnunet_3dct.formats.metrics_class import (
    CLASSIFICATION_METRICS,
    ClassComparison,
    ClassificationMetrics,
    PerClassName,
)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_evaluate_classification",
        description="Compares predicted classes with the class labels of the dataset.",
    )
    parser.add_argument("pred_folder", type=Path, help="folder with <case>_classification.json or subtype_*.csv")
    parser.add_argument("labels", type=Path, help="classification.json (or CSV with the header Names,Subtype)")
    evaluation_flags.add_class_names(parser)
    parser.add_argument("-o", "--output", dest="o", type=Path, metavar="FILE",
                        help=f"default: pred_folder/{CLASSIFICATION_METRICS}")  # fmt: skip
    evaluation_flags.add_bootstrap(parser)
    evaluation_flags.add_compare(parser, "paired differences with intervals, McNemar's test")
    evaluation_flags.add_json(parser)
    return parser


def format_metrics(metrics: ClassificationMetrics) -> str:
    """Lay out the numbers with intervals, each class, the confusion matrix, the comparison and the warnings."""
    from nnunet_3dct.evaluation.class_metrics import METRICS_OF_A_CLASS

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


def _overall(metrics: ClassificationMetrics) -> str:
    from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS

    intervals = metrics["confidence_intervals"] or {}
    rows = []
    for key, name in CLASS_METRICS.items():
        row = [name, number(metrics[key])]
        if intervals:
            row.append("{:.3f} to {:.3f}".format(*intervals[key]) if key in intervals else "-")
        rows.append(row)
    return table(["", "value", *(["95 % interval"] if intervals else [])], rows)


def _of_class(metrics: ClassificationMetrics, key: PerClassName, k: int) -> str:
    """Value of a class with its interval."""
    values = metrics[key]
    text = number(values[k] if values else None)
    intervals = (metrics["confidence_intervals_per_class"] or {}).get(key)
    interval = intervals[k] if intervals else None
    if interval:
        text += " ({:.2f}-{:.2f})".format(*interval)
    return text


def format_comparison(comparison: ClassComparison) -> str:
    """Lay out a paired comparison of two folders."""
    from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS

    rows = []
    for key, pair in comparison["metrics"].items():
        row = [CLASS_METRICS[key], number(pair["first"]), number(pair["second"]), f"{pair['difference']:+.3f}"]
        rows.append([*row, "{:+.3f} to {:+.3f}".format(*pair["interval"]) if pair["interval"] else "-"])
    test = comparison["mcnemar"]
    return "\n".join(
        [
            f"first: {comparison['first']}, second: {comparison['second']}",
            table(["", "first", "second", "first - second", "95 % interval"], rows),
            f"only the first is right in {test['only_first_correct']} cases, only the second in "
            f"{test['only_second_correct']}; McNemar's exact test for equal accuracy: p = {test['p_value']:.3g}",
        ]
    )


def _notes(metrics: ClassificationMetrics) -> list[str]:
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
    """Evaluate, write the metrics and print them."""
    run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    # imported here so that --help does not wait for scikit-learn
    from nnunet_3dct.evaluation.classification import evaluate_classification
    from nnunet_3dct.evaluation.comparison import compare_classifications
    from nnunet_3dct.formats.atomic import to_json, write_json

    output = args.o or args.pred_folder / CLASSIFICATION_METRICS
    options = {"resamples": args.bootstrap, "seed": args.seed}
    metrics = evaluate_classification(args.pred_folder, args.labels, args.class_names, **options)
    if args.compare:
        metrics["comparison"] = compare_classifications(
            args.pred_folder, args.compare, args.labels, args.class_names, **options
        )
    with evaluation_flags.advice_on_output():
        write_json(metrics, output)
    if args.json:
        print(to_json(metrics))
        return
    print(format_metrics(metrics))
    print(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
