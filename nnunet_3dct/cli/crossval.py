"""``nnUNet3DCT_crossval``: one estimate for both tasks from the validation of all folds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.cli.trained_folds import add_model_flags, find_trained_folds
from nnunet_3dct.errors import NNUNet3DCTError, OutputError
from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS
from nnunet_3dct.upstream import default_num_processes

METRICS_NAME = "crossval_metrics.json"


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, nnU-Net's where it has them."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_crossval",
        description="Puts the validation predictions of all folds together: every case is predicted by a network that "
        "was not trained on it. Gives Dice, surface Dice, HD95 and class metrics over all cases, with intervals, and "
        "the spread of the folds.",
    )
    add_model_flags(parser)
    parser.add_argument("-o", type=Path, help=f"output file; the table of the cases is written beside it with the "
                        f"ending .csv. Default: {METRICS_NAME} in the model folder")  # fmt: skip
    parser.add_argument("--class-names", nargs="+", metavar="NAME", help="names of the classes 0, 1, ...")
    parser.add_argument(
        "--tolerance", type=float, default=2.0, metavar="MM", help="of the surface Dice. Default: %(default)s mm"
    )
    parser.add_argument("--bootstrap", type=int, default=2000, help="resamples for the intervals, 0 for none. "
                        "Default: %(default)s")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples. Default: %(default)s")
    parser.add_argument("-np", type=int, default=default_num_processes, help="cases compared at the same time. "
                        "Default: %(default)s")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON instead of tables")
    return parser


def format_result(result: dict[str, Any]) -> str:
    """Lay out pooled metrics and the spread of the folds."""
    folds = list(result["folds"])
    cases = sum(len(cases) for cases in result["folds"].values())
    several = len(folds) > 1
    parts = [f"{cases} cases of {len(folds)} folds" if several else f"{cases} cases of fold {folds[0]}"]
    segmentation = result["segmentation"]
    rows = []
    for name, pooled in segmentation["pooled"].items():
        for key, digits in (("Dice", 3), ("NSD", 3), ("HD95", 1)):
            found, spread = pooled[key], segmentation["spread"][name][key]
            of_folds = [segmentation["per_fold"][fold][name][key] for fold in folds]
            rows.append([f"{name} {key}", *_row(found["mean"], found["mean_interval"], spread, of_folds, digits)])
    header = ["all cases", "95 % interval", *(["folds", *(f"fold {fold}" for fold in folds)] if several else [])]
    parts.append(table(["mean", *header], rows))
    classes = result["classification"]
    if classes["pooled"]:
        intervals = classes["pooled"]["confidence_intervals"] or {}
        rows = []
        for key, name in CLASS_METRICS.items():
            of_folds = [classes["per_fold"].get(fold, {}).get(key) for fold in folds]
            row = _row(classes["pooled"][key], intervals.get(key), classes["spread"][key], of_folds, 3)
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
    spread: dict[str, Any],
    of_folds: Sequence[float | None],
    digits: int,
) -> list[str]:
    between = f"{number(interval[0], digits)} to {number(interval[1], digits)}" if interval else "-"
    row = [number(value, digits), between]
    if len(of_folds) > 1:
        row.append(f"{number(spread['mean'], digits)} ± {number(spread['sd'], digits)}")
        row += [number(one, digits) for one in of_folds]
    return row


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, write and print; exit with code 1 and one message if that is impossible."""
    args = build_parser().parse_args(argv)
    try:
        _run(args)
    except NNUNet3DCTError as error:
        advice = " Give another file with -o." if isinstance(error, OutputError) else ""
        print(f"error: {error}{advice}", file=sys.stderr)
        sys.exit(1)


def _run(args: argparse.Namespace) -> None:
    from nnunet_3dct.evaluation.crossval import cross_validate, to_csv
    from nnunet_3dct.formats.atomic import to_json, write_json, write_text

    found = find_trained_folds(args)
    output = args.o or found.model / METRICS_NAME
    result = cross_validate(
        found.folds,
        found.preprocessed / "gt_segmentations",
        found.model / "dataset.json",
        found.labels,
        args.class_names or found.class_names,
        tolerance=args.tolerance,
        num_processes=args.np,
        resamples=args.bootstrap,
        seed=args.seed,
    )
    result = {"model": found.model.name, "warnings": found.warnings, **result}
    write_json(result, output)
    write_text(to_csv(result, found.folds, found.labels), output.with_suffix(".csv"))
    if args.json:
        print(to_json(result))
        return
    print(f"{found.model.name}: {format_result(result)}")
    print(f"\nwritten to {output} and {output.with_suffix('.csv').name}")


if __name__ == "__main__":
    main()
