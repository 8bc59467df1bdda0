"""``nnUNet3DCT_select``: which of the trained models to use, by class and Dice."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_3dct.cli import evaluation_flags
from nnunet_3dct.cli.runner import DONE, SOME_FAILED, run_command
from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.selection import INSTRUCTIONS, SELECTION, SELECTION_METRICS, Difference, Score, Selection


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, those of nnUNetv2_find_best_configuration where it has them."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_select",
        description="Compares trained models out of fold, by class score and Dice, single and in pairs, and says which "
        "to use. The score of the best of several is inflated by the choice: estimate and intervals are corrected for "
        "the number of candidates.",
    )
    add = parser.add_argument
    add("-d", metavar="DATASET", help="name or id of the dataset; all its models with class predictions are compared "
        "unless some are named")  # fmt: skip
    add("-tr", nargs="+", metavar="TRAINER", help="trainers. Default: all")
    add("-p", nargs="+", metavar="PLANS", help="plans. Default: all")
    add("-c", nargs="+", metavar="CONFIGURATION", help="configurations. Default: all")
    add("-m", nargs="+", type=Path, default=[], metavar="FOLDER", help="folders of more models, also without -d")
    add("-f", nargs="+", type=int, metavar="FOLD", help="folds. Default: all with a validation")
    add("--disable_ensembling", action="store_true", help="compare single models alone, no pairs")
    add(
        "--metric", default="f1_macro", choices=SELECTION_METRICS, help="class score that decides. Default: %(default)s"
    )
    add("--reference", metavar="MODEL", help="trainer, or name of the folder, of the model that the others are set "
        "against. Default: nnUNetTrainer_CLSHeadSumFT if it takes part, else the first")  # fmt: skip
    add("-o", "--output", dest="o", type=Path, metavar="FILE", help=f"{INSTRUCTIONS} is written beside it. Default: "
        f"{SELECTION} in the folder of the dataset in nnUNet_results")  # fmt: skip
    evaluation_flags.add_bootstrap(parser, lowest=100)
    evaluation_flags.add_num_processes(parser)
    evaluation_flags.add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, write and print; exit code 1 if a model that was not named could not be read."""
    run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> int:
    from nnunet_3dct.evaluation.selection.wording import commands, instructions, verdict
    from nnunet_3dct.formats.atomic import to_json, write_json, write_text

    if args.d is None and not args.m:
        raise SettingsError("-d or -m: expected a dataset, folders of models or both, found neither.")
    result = _select(args)
    output = args.o or Path(result["models"][0]["folder"]).parent / SELECTION
    with evaluation_flags.advice_on_output():
        write_json(result, output)
        write_text(instructions(result), output.with_name(INSTRUCTIONS))
    if args.json:
        print(to_json(result))
    else:
        print(format_result(result))
        print("\n".join(["", *verdict(result), "", *commands(result), ""]))
        print(f"written to {output} and {INSTRUCTIONS}")
    return SOME_FAILED if result["failed_models"] else DONE


def _select(args: argparse.Namespace) -> Selection:
    from tqdm import tqdm

    from nnunet_3dct.evaluation.selection.select import select_model

    with tqdm(desc="Dice", unit="case", disable=args.disable_progress_bar or None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        return select_model(
            args.d,
            trainers=args.tr,
            plans=args.p,
            configurations=args.c,
            models=args.m,
            folds=args.f,
            ensembling=not args.disable_ensembling,
            metric=args.metric,
            reference=args.reference,
            num_processes=args.np,
            resamples=args.bootstrap,
            seed=args.seed,
            progress=progress,
        )


def format_result(result: Selection) -> str:
    """Lay out models, scores and differences; candidates are called by the numbers of their models."""
    from nnunet_3dct.evaluation.selection.wording import METRIC_NAMES, model_numbers

    short = model_numbers(result)
    patients = f" of {result['n_patients']} patients" if result["n_patients"] else ""
    without = result["n_cases"] - result["n_class_cases"]
    unknown = f", {without} of them without a class" if without else ""
    parts = [f"{result['dataset']}: {result['n_cases']} cases{patients}{unknown}, each predicted out of fold"]
    rows = [
        [f"{n}  {model['name']}", " ".join(map(str, model["folds"]))]
        for n, model in enumerate(result["models"], start=1)
    ]
    parts.append(table(["model", "folds"], rows))
    metric = METRIC_NAMES[result["metric"]]
    reference = short[result["reference"]]
    header = ["candidate", "macro-F1", "balanced accuracy", "AUC", "Dice"]
    header += [f"{metric} minus best", f"{metric} minus {reference}", "not worse", ""]
    rows = []
    for row in result["candidates"]:
        marks = [mark for mark in ("best", "selected") if result[mark]["name"] == row["name"]]
        scores = [_score(row[key]) for key in ("f1_macro", "balanced_accuracy", "auc_macro", "dice")]
        differences = [_difference(row["to_best"]), _difference(row["to_reference"])]
        rows.append([short[row["name"]], *scores, *differences, "yes" if row["not_worse"] else "no", ", ".join(marks)])
    parts.append(table(header, rows))
    notes = [f"left out: {name}: {reason}" for name, reason in result["models_left_out"].items()]
    notes += [f"warning: {line}" for line in result["warnings"]]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def _score(score: Score) -> str:
    if score["interval"] is None:
        return number(score["value"])
    low, high = score["interval"]
    return f"{number(score['value'])} ({number(low, 2)} to {number(high, 2)})"


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    low, high = difference["interval"]
    return f"{number(difference['difference'], 3, '+')} ({number(low, 2, '+')} to {number(high, 2, '+')})"


if __name__ == "__main__":
    main()
