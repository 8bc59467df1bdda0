"""``nnUNet3DCT_phantom``: write a synthetic dataset to try everything on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_3dct.cli.runner import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the dataset."""
    run_command(build_parser(), _write, argv)


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_phantom",
        description="Write synthetic CT of pancreas and lesions of three subtypes as an nnU-Net raw dataset.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("-o", required=True, metavar="FOLDER", help="dataset folder, e.g. $nnUNet_raw/Dataset001_3DCT")
    parser.add_argument("--cases", type=int, default=60, metavar="N", help="training cases, at least 3")
    parser.add_argument("--val", type=int, default=12, metavar="N", help="validation cases (imagesVal, labelsVal)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the same seed gives the same files")
    parser.add_argument(
        "--difficulty",
        choices=("easy", "hard"),
        default="easy",
        help="hard: no single intensity statistic tells the subtypes apart",
    )
    parser.add_argument("-np", type=int, default=2, metavar="N", help="processes")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset in FOLDER")
    return parser


def _write(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from nnunet_3dct.phantom.dataset import write_phantom

    with tqdm(total=args.cases + args.val, desc="cases", unit="case", disable=args.disable_progress_bar) as bar:
        write_phantom(
            args.o,
            cases=args.cases,
            val=args.val,
            seed=args.seed,
            difficulty=args.difficulty,
            num_processes=args.np,
            overwrite=args.overwrite,
            progress=lambda done, _: bar.update(done - bar.n),
        )
    print(f"{args.cases} training and {args.val} validation cases in {args.o}")


if __name__ == "__main__":
    main()
