"""Flags that the commands on a trained model share, nnU-Net's where it has them."""

from __future__ import annotations

import argparse

MULTI_TASK = "nnUNetTrainer_CLSHeadSumFT"


def add_model(parser: argparse.ArgumentParser, trainer: str = MULTI_TASK, of: str = "") -> None:
    """``-d``, ``-tr``, ``-p`` and ``-c``: which model.

    Args:
        parser: of the command.
        trainer: by default.
        of: what the trainer is of, where that is not plain.
    """
    parser.add_argument("-d", required=True, metavar="DATASET", help="name or id of a preprocessed dataset")
    parser.add_argument("-tr", default=trainer, help=f"trainer{of}. Default: %(default)s")
    parser.add_argument("-p", default="nnUNetPlans", help="plans. Default: %(default)s")
    parser.add_argument("-c", default="3d_fullres", help="configuration. Default: %(default)s")


def add_folds(parser: argparse.ArgumentParser, about: str) -> None:
    """``-f`` and ``-chk``: which of its networks."""
    parser.add_argument("-f", nargs="+", metavar="FOLD", help=about)
    parser.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint. Default: %(default)s")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``-device``."""
    parser.add_argument("-device", default="auto", metavar="DEVICE",
                        help="auto, cuda, cuda:1, cpu or mps. Default: %(default)s")  # fmt: skip


def add_target_labels(parser: argparse.ArgumentParser, default: str) -> None:
    """``--target_labels``; ``default`` says what is taken without."""
    parser.add_argument("--target_labels", metavar="LABELS",
                        help=f"as NNUNETV2_MT_TARGET_LABELS; default: {default}")  # fmt: skip
