"""``nnUNet3DCT_evaluate_segmentation``: overlap, surfaces, volumes and lesions of every structure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.errors import NNUNet3DCTError, OutputError, listing
from nnunet_3dct.upstream import default_num_processes

METRICS_NAME = "segmentation_metrics.json"


def build_parser() -> argparse.ArgumentParser:
    """Flags of ``nnUNetv2_evaluate_folder``, without the plans, and the settings of the metrics."""
    parser = argparse.ArgumentParser(
        description="Compares label volumes with their references: Dice, IoU, surface Dice (NSD), 95 % Hausdorff "
        "distance (HD95), volume and lesions of every label or region, and of all foreground labels together."
    )
    parser.add_argument("gt_folder", type=Path, help="folder with the reference segmentations")
    parser.add_argument("pred_folder", type=Path, help="folder with the predicted segmentations")
    parser.add_argument("-djfile", type=Path, required=True, help="dataset.json")
    parser.add_argument("-o", type=Path, help=f"output file; the table of the cases is written beside it with the "
                        f"ending .csv. Default: pred_folder/{METRICS_NAME}")  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, default=2.0, metavar="MM", help="of the surface Dice. Default: %(default)s mm"
    )
    parser.add_argument("--lesion_overlap", type=float, default=0.1, metavar="SHARE", help="of a lesion that must be "
                        "covered for it to count as found. Default: %(default)s")  # fmt: skip
    parser.add_argument(
        "-np",
        type=int,
        default=default_num_processes,
        help="number of cases compared at the same time. Default: %(default)s",
    )
    parser.add_argument("--chill", action="store_true", help="accept references that have no prediction")
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="a second folder with predictions of the same "
                        "cases: paired differences of Dice with intervals, Wilcoxon's test")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON instead of tables")
    return parser


def format_metrics(result: dict[str, Any]) -> str:
    """Lay out the means of every structure, its lesions, and the cases without a value."""
    tolerance = result["settings"]["tolerance_mm"]
    rows, lesions, notes = [], [], []
    for name, found in result["structures"].items():
        rows.append(
            [
                name,
                _with_interval(found["Dice"], 3),
                number(found["IoU"]["mean"], 3),
                _with_interval(found["NSD"], 3),
                _with_interval(found["HD95"], 1),
                number(found["volume_error_ml"]["mean"], 2, "+"),
                number(found["volume_error_percent"]["median"], 1, "+"),
            ]
        )
        counts = found["lesions"]
        lesions.append([name, *(str(counts[f"lesions_{key}"]) for key in ("reference", "found", "missed", "false"))])
        lesions[-1] += [number(counts["sensitivity"], 3), number(counts["precision"], 3)]
        for key, words in (
            ("empty_in_both", "empty in both, no Dice"),
            ("empty_prediction", "nothing predicted, Dice 0, no HD95"),
            ("empty_reference", "empty reference, Dice 0, no HD95"),
        ):
            if found[key]:
                notes.append(f"note: {name}: {words}: {listing(found[key], 5)}")
    if result["missing_predictions"]:
        missing = result["missing_predictions"]
        notes.append(f"note: {len(missing)} references without a prediction left out: {listing(missing, 3)}")
    if result["rounded_to_whole_labels"]:
        notes.append(f"note: values rounded to whole labels: {listing(result['rounded_to_whole_labels'], 3)}")
    header = ["mean (95 % interval)", "Dice", "IoU", f"NSD {tolerance:g} mm", "HD95 [mm]", "volume [ml]", "median [%]"]
    parts = [
        f"{result['n_cases']} cases",
        table(header, rows),
        table(["connected parts", "all", "found", "missed", "false", "sensitivity", "precision"], lesions),
        *([format_comparison(result["comparison"])] if "comparison" in result else []),
        *(["\n".join(notes)] if notes else []),
    ]
    return "\n\n".join(parts)


def format_comparison(comparison: dict[str, Any]) -> str:
    """Lay out a paired comparison of two folders."""
    rows = []
    for name, found in comparison["structures"].items():
        dice = found["Dice"]
        if dice is None:
            rows.append([name, *["-"] * 5, "0"])
            continue
        row = [name, number(dice["first"]), number(dice["second"]), number(dice["difference"], 4, "+")]
        row.append("{:+.4f} to {:+.4f}".format(*dice["interval"]) if dice["interval"] else "-")
        p_value = dice["wilcoxon_p_value"]
        rows.append([*row, "-" if p_value is None else f"{p_value:.3g}", str(found["n"])])
    header = ["mean Dice", "first", "second", "first - second", "95 % interval", "Wilcoxon p", "cases"]
    return f"first: {comparison['first']}, second: {comparison['second']}\n{table(header, rows)}"


def _with_interval(statistics: dict[str, Any], digits: int) -> str:
    text = number(statistics["mean"], digits)
    if statistics["mean_interval"]:
        low, high = statistics["mean_interval"]
        text += f" ({low:.{digits}f}-{high:.{digits}f})"
    return text


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, write metrics and table, print them; exit with code 1 and one message if that is impossible."""
    args = build_parser().parse_args(argv)
    # imported here so that --help does not wait for nnU-Net and torch
    from nnunet_3dct.evaluation.comparison import compare_segmentations
    from nnunet_3dct.evaluation.segmentation import evaluate_segmentation, to_csv
    from nnunet_3dct.formats.atomic import to_json, write_json, write_text

    output = args.o or args.pred_folder / METRICS_NAME

    def evaluate(folder: Path) -> dict[str, Any]:
        return evaluate_segmentation(
            args.gt_folder,
            folder,
            args.djfile,
            tolerance=args.tolerance,
            lesion_overlap=args.lesion_overlap,
            num_processes=args.np,
            chill=args.chill,
        )

    try:
        result = evaluate(args.pred_folder)
        if args.compare:
            compared = compare_segmentations(result, evaluate(args.compare))
            result["comparison"] = {"first": str(args.pred_folder), "second": str(args.compare), **compared}
        write_json(result, output)
        write_text(to_csv(result), output.with_suffix(".csv"))
    except NNUNet3DCTError as error:
        advice = " Give another file with -o." if isinstance(error, OutputError) else ""
        print(f"error: {error}{advice}", file=sys.stderr)
        sys.exit(1)
    if args.json:
        print(to_json(result))
        return
    print(format_metrics(result))
    print(f"\nwritten to {output} and {output.with_suffix('.csv').name}")


if __name__ == "__main__":
    main()
