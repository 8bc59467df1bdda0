"""``nnUNet3DCT_evaluate_whole_organ``: Dice of all foreground labels taken as one organ."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnunet_3dct.cli import evaluation_flags
from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.errors import listing
from nnunet_3dct.formats.metrics_segmentation import WHOLE_ORGAN_SUMMARY, WHOLE_PANCREAS, WholeOrganSummary

LOWEST_SHOWN = 5


def build_parser() -> argparse.ArgumentParser:
    """Flags of ``nnUNetv2_evaluate_folder``, without the plans."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_evaluate_whole_organ",
        description="Compares label volumes with their references, all foreground labels taken as one organ.",
    )
    parser.add_argument("gt_folder", type=Path, help="folder with the reference segmentations")
    parser.add_argument("pred_folder", type=Path, help="folder with the predicted segmentations")
    parser.add_argument("-djfile", type=Path, required=True, help="dataset.json")
    parser.add_argument("-o", "--output", dest="o", type=Path, metavar="FILE",
                        help=f"default: pred_folder/{WHOLE_ORGAN_SUMMARY}")  # fmt: skip
    evaluation_flags.add_num_processes(parser)
    evaluation_flags.add_chill(parser)
    evaluation_flags.add_json(parser)
    return parser


def format_summary(summary: WholeOrganSummary) -> str:
    """Lay out the summary as a table of a few lines."""
    import numpy as np

    cases = [
        (Path(case["reference_file"]).name, case["metrics"][WHOLE_PANCREAS]) for case in summary["metric_per_case"]
    ]
    defined = sorted(
        ((name, metrics) for name, metrics in cases if not np.isnan(metrics["Dice"])),
        key=lambda c: c[1]["Dice"],
    )
    labels = ", ".join(map(str, summary["labels"]["foreground"]))
    parts = [f"Whole organ (labels {labels}), {summary['n_cases']} cases"]
    if defined:
        statistics: dict[str, Callable[[list[float]], Any]] = {
            "mean": np.mean,
            "median": np.median,
            "lowest": np.min,
            "highest": np.max,
        }
        rows = [
            [
                name,
                number(statistic([metrics["Dice"] for _, metrics in defined]), 4),
                number(statistic([metrics["IoU"] for _, metrics in defined]), 4),
            ]
            for name, statistic in statistics.items()
        ]
        parts.append(table(["", "Dice", "IoU"], rows))
        rows = [[n, number(m["Dice"], 4), str(m["n_pred"]), str(m["n_ref"])] for n, m in defined[:LOWEST_SHOWN]]
        parts.append(table(["lowest Dice", "Dice", "voxels predicted", "in reference"], rows))
    notes = []
    if summary["empty_in_both"]["count"]:
        notes.append(f"empty in both, without a Dice: {listing(summary['empty_in_both']['cases'])}")
    if summary["missing_predictions"]:
        missing = summary["missing_predictions"]
        notes.append(f"{len(missing)} references without a prediction left out: {listing(missing, 3)}")
    if summary["rounded_to_whole_labels"]:
        notes.append(f"values rounded to whole labels: {listing(summary['rounded_to_whole_labels'], 3)}")
    if notes:
        parts.append("\n".join(f"note: {note}" for note in notes))
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, write the summary and print it."""
    run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    # imported here so that --help does not wait for SciPy
    from nnunet_3dct.evaluation.whole_organ import evaluate_whole_organ
    from nnunet_3dct.formats.atomic import to_json, write_json

    output = args.o or args.pred_folder / WHOLE_ORGAN_SUMMARY
    summary = evaluate_whole_organ(
        args.gt_folder, args.pred_folder, args.djfile, num_processes=args.np, chill=args.chill
    )
    with evaluation_flags.advice_on_output():
        write_json(summary, output)
    if args.json:
        print(to_json(summary))
        return
    print(format_summary(summary))
    print(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
