"""Draws predicted cases of a finished demo, one of each class.

After ``make demo``, ``python -m figures.draw_cases demo`` writes ``figures/cvis.svg``;
``python -m figures.draw_cases demo --cases val_0003 val_0007 -o other.svg`` draws other cases.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from figures.canvas import save
from figures.cases_drawing import draw
from figures.predicted_case import DrawnCase, median_cases, read_case, rightly_classified
from nnunet_3dct.demo.workflow import CLASS_NAMES
from nnunet_3dct.errors import NNUNet3DCTError


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of a finished make demo")
    parser.add_argument(
        "--cases", nargs="+", metavar="CASE", help="default: of each class the case of median lesion Dice"
    )
    parser.add_argument("-o", type=Path, nargs="+", default=[Path(__file__).with_name("cvis.svg")])
    args = parser.parse_args(argv)
    try:
        cases = [read_case(args.demo, name) for name in args.cases or median_cases(args.demo)]
        right, number = rightly_classified(args.demo)
    except (NNUNet3DCTError, OSError) as error:
        sys.exit(f"error: {error}")
    choice = "" if args.cases else "Of each class the case of median lesion Dice. "
    choice += f"Of all {number} held-out cases {right} have the right class."
    for path in args.o:
        save(draw(cases, CLASS_NAMES, choice), path, "Predicted cases of the phantom", describe(cases))


def describe(cases: Sequence[DrawnCase]) -> str:
    """The figure in words."""
    lines = [
        f"{case.name}: true class {CLASS_NAMES[case.truth]}, predicted {CLASS_NAMES[case.predicted]} with probability "
        f"{case.probabilities[case.predicted]:.2f}, lesion Dice {case.lesion_dice:.2f}."
        for case in cases
    ]
    planes = "Axial and coronal slices of synthetic CT with outlines of pancreas and lesion, reference and prediction."
    return " ".join([planes, *lines])


if __name__ == "__main__":
    main()
