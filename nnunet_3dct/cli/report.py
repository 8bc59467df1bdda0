"""``nnUNet3DCT_report``: one HTML file with the metrics and pictures of a prediction folder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_3dct.errors import NNUNet3DCTError, OutputError
from nnunet_3dct.upstream import default_num_processes


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_report",
        description="Writes one self-contained HTML file: metrics of the cohort, and for each case its slices with "
        "outlines, class and volumes. Whatever is not given is left out.",
    )
    add = parser.add_argument
    add("-p", required=True, type=Path, metavar="PREDICTIONS", help="folder that nnUNet3DCT_predict wrote to")
    add("-g", type=Path, metavar="LABELS", help="folder with the reference segmentations")
    add("-i", type=Path, metavar="IMAGES", help="folder with the images (<case>_0000.nii.gz, ...)")
    add("-c", type=Path, metavar="CLASSES", help="classification.json (or CSV with the header Names,Subtype)")
    add("-co", type=Path, metavar="FOLDER", help="folder of the class predictions; default: PREDICTIONS")
    add("-djfile", type=Path, help="dataset.json; default: the one in PREDICTIONS")
    add("-o", required=True, type=Path, metavar="FILE", help="the HTML file")
    add("--class-names", nargs="+", metavar="NAME", help="names of the classes 0, 1, ...")
    add("--window", nargs=2, type=float, default=(-160.0, 240.0), metavar=("LOW", "HIGH"),
        help="intensities shown from black to white; default: -160 240 HU, the abdominal window")  # fmt: skip
    add("--cases", type=int, metavar="N", help="sections for N cases alone, those with the lowest Dice (without "
        "references: with the least certain class); default: all")  # fmt: skip
    add("--tolerance", type=float, default=2.0, metavar="MM", help="of the surface Dice; default: %(default)s mm")
    add("--chill", action="store_true", help="accept references that have no prediction")
    add("-np", type=int, default=default_num_processes,
        help="number of cases compared at the same time; default: %(default)s")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report; exit with code 1 and one message if that is impossible."""
    args = build_parser().parse_args(argv)
    try:
        run(args)
    except NNUNet3DCTError as error:
        advice = " Give another file with -o." if isinstance(error, OutputError) else ""
        sys.exit(f"error: {error}{advice}")


def run(args: argparse.Namespace) -> None:
    """Check that the file can be written, build the page, write it."""
    _check_output(args.o)
    # imported here so that --help does not wait for nnU-Net and scikit-learn
    from nnunet_3dct.formats.atomic import write_text
    from nnunet_3dct.report.options import ReportOptions
    from nnunet_3dct.report.page import build_report

    options = ReportOptions(
        predictions=args.p,
        labels=args.g,
        images=args.i,
        class_labels=args.c,
        dataset_json=args.djfile,
        class_folder=args.co,
        class_names=tuple(args.class_names) if args.class_names else None,
        window=tuple(args.window),
        max_cases=args.cases,
        tolerance=args.tolerance,
        chill=args.chill,
        num_processes=args.np,
    )
    report = build_report(options)
    write_text(report.html, args.o)
    size = args.o.stat().st_size / 1e6
    print(f"{report.total} cases, {report.cases} with pictures, {size:.1f} MB -> {args.o}")


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
