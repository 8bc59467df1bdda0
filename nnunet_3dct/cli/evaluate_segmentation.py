"""``nnUNet3DCT_evaluate_segmentation``: overlap, surfaces, volumes and lesions of every structure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_3dct.cli import evaluation_flags
from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.errors import listing
from nnunet_3dct.formats.metrics_segmentation import (
    SEGMENTATION_METRICS,
    SegmentationComparison,
    SegmentationMetrics,
    Statistics,
    StructureSummary,
)


def build_parser() -> argparse.ArgumentParser:
    """Flags of ``nnUNetv2_evaluate_folder``, without the plans, and the settings of the metrics."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_evaluate_segmentation",
        description="Compares label volumes with their references: Dice, IoU, surface Dice (NSD), 95 % Hausdorff "
        "distance (HD95), volume and lesions of every label or region, and of all foreground labels together.",
    )
    parser.add_argument("gt_folder", type=Path, help="folder with the reference segmentations")
    parser.add_argument("pred_folder", type=Path, help="folder with the predicted segmentations")
    parser.add_argument("-djfile", type=Path, required=True, help="dataset.json")
    parser.add_argument("-o", "--output", dest="o", type=Path, metavar="FILE", help="the table of the cases is written "
                        f"beside it with the ending .csv. Default: pred_folder/{SEGMENTATION_METRICS}")  # fmt: skip
    evaluation_flags.add_tolerance(parser)
    parser.add_argument("--lesion_overlap", type=float, default=0.1, metavar="SHARE", help="of a lesion that must be "
                        "covered for it to count as found. Default: %(default)s")  # fmt: skip
    evaluation_flags.add_num_processes(parser)
    evaluation_flags.add_chill(parser)
    evaluation_flags.add_compare(parser, "paired differences of Dice with intervals, Wilcoxon's test")
    evaluation_flags.add_json(parser)
    return parser


def format_metrics(result: SegmentationMetrics) -> str:
    """Lay out the means of every structure, its lesions, and the cases without a value."""
    tolerance = result["settings"]["tolerance_mm"]
    structures = result["structures"]
    notes = [note for name, summary in structures.items() for note in _empty_cases(name, summary)]
    if result["missing_predictions"]:
        missing = result["missing_predictions"]
        notes.append(f"note: {len(missing)} references without a prediction left out: {listing(missing, 3)}")
    if result["rounded_to_whole_labels"]:
        notes.append(f"note: values rounded to whole labels: {listing(result['rounded_to_whole_labels'], 3)}")
    header = ["mean (95 % interval)", "Dice", "IoU", f"NSD {tolerance:g} mm", "HD95 [mm]", "volume [ml]", "median [%]"]
    parts = [
        f"{result['n_cases']} cases",
        table(header, [_means(name, summary) for name, summary in structures.items()]),
        table(
            ["connected parts", "all", "found", "missed", "false", "sensitivity", "precision"],
            [_lesions(name, summary) for name, summary in structures.items()],
        ),
        *([format_comparison(result["comparison"])] if "comparison" in result else []),
        *(["\n".join(notes)] if notes else []),
    ]
    return "\n\n".join(parts)


def _means(name: str, summary: StructureSummary) -> list[str]:
    return [
        name,
        _with_interval(summary["Dice"], 3),
        number(summary["IoU"]["mean"], 3),
        _with_interval(summary["NSD"], 3),
        _with_interval(summary["HD95"], 1),
        number(summary["volume_error_ml"]["mean"], 2, "+"),
        number(summary["volume_error_percent"]["median"], 1, "+"),
    ]


def _lesions(name: str, summary: StructureSummary) -> list[str]:
    counts = summary["lesions"]
    return [
        name,
        str(counts["lesions_reference"]),
        str(counts["lesions_found"]),
        str(counts["lesions_missed"]),
        str(counts["lesions_false"]),
        number(counts["sensitivity"], 3),
        number(counts["precision"], 3),
    ]


def _empty_cases(name: str, summary: StructureSummary) -> list[str]:
    lists = (
        (summary["empty_in_both"], "empty in both, no Dice"),
        (summary["empty_prediction"], "nothing predicted, Dice 0, no HD95"),
        (summary["empty_reference"], "empty reference, Dice 0, no HD95"),
    )
    return [f"note: {name}: {words}: {listing(cases, 5)}" for cases, words in lists if cases]


def format_comparison(comparison: SegmentationComparison) -> str:
    """Lay out a paired comparison of two folders."""
    rows = []
    for name, pair in comparison["structures"].items():
        dice = pair["Dice"]
        if dice is None:
            rows.append([name, *["-"] * 5, "0"])
            continue
        row = [name, number(dice["first"]), number(dice["second"]), number(dice["difference"], 4, "+")]
        row.append("{:+.4f} to {:+.4f}".format(*dice["interval"]) if dice["interval"] else "-")
        p_value = dice["wilcoxon_p_value"]
        rows.append([*row, "-" if p_value is None else f"{p_value:.3g}", str(pair["n"])])
    header = ["mean Dice", "first", "second", "first - second", "95 % interval", "Wilcoxon p", "cases"]
    return f"first: {comparison['first']}, second: {comparison['second']}\n{table(header, rows)}"


def _with_interval(statistics: Statistics, digits: int) -> str:
    text = number(statistics["mean"], digits)
    if statistics["mean_interval"]:
        low, high = statistics["mean_interval"]
        text += f" ({low:.{digits}f}-{high:.{digits}f})"
    return text


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, write metrics and table, print them."""
    run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    # imported here so that --help does not wait for SciPy
    from nnunet_3dct.evaluation.comparison import compare_segmentations
    from nnunet_3dct.evaluation.segmentation import evaluate_segmentation, to_csv
    from nnunet_3dct.formats.atomic import to_json, write_json, write_text

    def evaluate(folder: Path) -> SegmentationMetrics:
        return evaluate_segmentation(
            args.gt_folder,
            folder,
            args.djfile,
            tolerance=args.tolerance,
            lesion_overlap=args.lesion_overlap,
            num_processes=args.np,
            chill=args.chill,
        )

    output = args.o or args.pred_folder / SEGMENTATION_METRICS
    result = evaluate(args.pred_folder)
    if args.compare:
        result["comparison"] = compare_segmentations(result, evaluate(args.compare), args.pred_folder, args.compare)
    with evaluation_flags.advice_on_output():
        write_json(result, output)
        write_text(to_csv(result), output.with_suffix(".csv"))
    if args.json:
        print(to_json(result))
        return
    print(format_metrics(result))
    print(f"\nwritten to {output} and {output.with_suffix('.csv').name}")


if __name__ == "__main__":
    main()
