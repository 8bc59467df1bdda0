"""``nnUNet3DCT_crossval``: one estimate for both tasks from the validation of all folds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_3dct.cli import evaluation_flags
from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.cli.trained_folds import add_model_flags, find_trained_folds
from nnunet_3dct.formats.metrics_crossval import CROSSVAL_METRICS, CrossvalMetrics, Spread
from nnunet_3dct.formats.metrics_segmentation import AveragedMetric


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, nnU-Net's where it has them."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_crossval",
        description="Puts the validation predictions of all folds together: every case is predicted by a network that "
        "was not trained on it. Gives Dice, surface Dice, HD95 and class metrics over all cases, with intervals, and "
        "the spread of the folds.",
    )
    add_model_flags(parser)
    parser.add_argument("-o", "--output", dest="o", type=Path, metavar="FILE", help="the table of the cases is written "
                        f"beside it with the ending .csv. Default: {CROSSVAL_METRICS} in the model folder")  # fmt: skip
    evaluation_flags.add_class_names(parser)
    evaluation_flags.add_tolerance(parser)
    evaluation_flags.add_bootstrap(parser)
    evaluation_flags.add_num_processes(parser)
    evaluation_flags.add_json(parser)
    return parser


def format_result(result: CrossvalMetrics) -> str:
    """Lay out pooled metrics and the spread of the folds."""
    from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS

    shown: tuple[tuple[AveragedMetric, int], ...] = (("Dice", 3), ("NSD", 3), ("HD95", 1))
    folds = list(result["folds"])
    cases = sum(len(cases) for cases in result["folds"].values())
    several = len(folds) > 1
    parts = [f"{cases} cases of {len(folds)} folds" if several else f"{cases} cases of fold {folds[0]}"]
    segmentation = result["segmentation"]
    rows = []
    for name, pooled in segmentation["pooled"].items():
        for key, digits in shown:
            total, spread = pooled[key], segmentation["spread"][name][key]
            of_folds = [segmentation["per_fold"][fold][name][key] for fold in folds]
            rows.append([f"{name} {key}", *_row(total["mean"], total["mean_interval"], spread, of_folds, digits)])
    header = ["all cases", "95 % interval"]
    if several:
        header += ["folds (SD)", *(f"fold {fold}" for fold in folds)]
    parts.append(table(["mean", *header], rows))
    classes = result["classification"]
    if classes["pooled"]:
        intervals = classes["pooled"]["confidence_intervals"] or {}
        rows = []
        for metric, name in CLASS_METRICS.items():
            of_folds = [classes["per_fold"].get(fold, {}).get(metric) for fold in folds]
            row = _row(classes["pooled"][metric], intervals.get(metric), classes["spread"][metric], of_folds, 3)
            rows.append([name, *row])
        parts.append(table(["class", *header], rows))
        names = classes["pooled"]["class_names"]
        matrix = zip(names, classes["pooled"]["confusion_matrix"], strict=True)
        parts.append(table(["true class, predicted", *names], [[name, *map(str, row)] for name, row in matrix]))
    notes = [*result["warnings"], *(classes["pooled"]["warnings"] if classes["pooled"] else ["no case has a class"])]
    if notes:
        parts.append("\n".join(f"warning: {note}" for note in notes))
    return "\n\n".join(parts)


def _row(
    value: float | None,
    interval: Sequence[float] | None,
    spread: Spread,
    of_folds: Sequence[float | None],
    digits: int,
) -> list[str]:
    between = f"{number(interval[0], digits)} to {number(interval[1], digits)}" if interval else "-"
    row = [number(value, digits), between]
    if len(of_folds) > 1:
        row.append(f"{number(spread['mean'], digits)} ({number(spread['sd'], digits)})")
        row += [number(one, digits) for one in of_folds]
    return row


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, write and print."""
    run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    from nnunet_3dct.evaluation.crossval import cross_validate_folds, to_csv
    from nnunet_3dct.formats.atomic import to_json, write_json, write_text

    trained = find_trained_folds(args)
    output = args.o or trained.model / CROSSVAL_METRICS
    result = cross_validate_folds(
        trained,
        args.class_names,
        tolerance=args.tolerance,
        num_processes=args.np,
        resamples=args.bootstrap,
        seed=args.seed,
    )
    with evaluation_flags.advice_on_output():
        write_json(result, output)
        write_text(to_csv(result, trained), output.with_suffix(".csv"))
    if args.json:
        print(to_json(result))
        return
    print(f"{trained.model.name}: {format_result(result)}")
    print(f"\nclasses from {trained.labels.source}")
    print(f"written to {output} and {output.with_suffix('.csv').name}")


if __name__ == "__main__":
    main()
