"""``nnUNet3DCT_report``: one HTML file with the metrics and pictures of a prediction folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_3dct.cli import evaluation_flags
from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.errors import OutputError

if TYPE_CHECKING:
    from nnunet_3dct.report.case_result import CaseResult


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command; the short flags are older, and ``-p`` and ``-c`` mean other things in nnU-Net."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_report",
        description="Writes one self-contained HTML file: metrics of the cohort, and for each case its slices with "
        "outlines, class and volumes. Whatever is not given is left out.",
    )
    add = parser.add_argument
    add("--predictions", "-p", required=True, type=Path, metavar="FOLDER", help="folder that nnUNet3DCT_predict wrote")
    add("--labels", "-g", type=Path, metavar="FOLDER", help="folder with the reference segmentations")
    add("--images", "-i", type=Path, metavar="FOLDER", help="folder with the images (<case>_0000.nii.gz, ...)")
    add("--classes", "-c", type=Path, metavar="FILE", help="classification.json (or CSV with the header Names,Subtype)")
    add("--class_folder", "-co", type=Path, metavar="FOLDER", help="folder of the class predictions; default: that of "
        "--predictions")  # fmt: skip
    add("-djfile", type=Path, metavar="FILE", help="dataset.json; default: the one in the folder of --predictions")
    add("--output", "-o", required=True, type=Path, metavar="FILE", help="the HTML file")
    evaluation_flags.add_class_names(parser)
    add("--window", nargs=2, type=float, default=(-160.0, 240.0), metavar=("LOW", "HIGH"),
        help="intensities shown from black to white; default: -160 240 HU, the abdominal window")  # fmt: skip
    add("--cases", type=int, metavar="N", help="sections for N cases alone, those with the lowest Dice (without "
        "references: with the least certain class); default: all")  # fmt: skip
    evaluation_flags.add_tolerance(parser)
    evaluation_flags.add_chill(parser)
    evaluation_flags.add_num_processes(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report."""
    run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    _check_output(args.output)
    # imported here so that --help does not wait for scikit-learn
    from nnunet_3dct.report.options import ReportOptions
    from nnunet_3dct.report.page import write_page

    options = ReportOptions(
        predictions=args.predictions,
        labels=args.labels,
        images=args.images,
        classes=args.classes,
        dataset_json=args.djfile,
        class_folder=args.class_folder,
        class_names=tuple(args.class_names) if args.class_names else None,
        window=tuple(args.window),
        max_cases=args.cases,
        tolerance=args.tolerance,
        chill=args.chill,
        num_processes=args.np,
    )
    with evaluation_flags.advice_on_output():
        report = write_page(options, args.output, partial(_progress, args.disable_progress_bar))
    size = args.output.stat().st_size / 1e6
    print(f"{report.num_cases} cases, {report.num_pages} with pictures, {size:.1f} MB -> {args.output}")
    for warning in report.warnings if args.verbose else ():
        print(f"warning: {warning}")


def _progress(disabled: bool, cases: Iterable[CaseResult], number: int) -> Iterable[CaseResult]:
    from tqdm import tqdm

    # None: shown in a terminal alone
    bar: Iterable[CaseResult] = tqdm(cases, "cases", number, leave=False, delay=1, disable=True if disabled else None)
    return bar


def _check_output(path: Path) -> None:
    """Raise OutputError before the work where the file could not be written after it."""
    if path.is_dir():
        raise OutputError(f"-o: expected a file, found the folder {path}.")
    if not path.parent.is_dir():
        raise OutputError(f"-o: the folder {path.parent} of {path.name} does not exist.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"-o: the folder {path.parent} of {path.name} cannot be written to.")


if __name__ == "__main__":
    main()
