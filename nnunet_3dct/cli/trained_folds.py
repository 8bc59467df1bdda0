"""What the commands on a model's out-of-fold predictions share: the flags that name a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nnunet_3dct.cli.model_flags import add_model

if TYPE_CHECKING:
    from nnunet_3dct.evaluation.trained_folds import TrainedFolds


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """nnU-Net's flags that name a model."""
    add_model(parser)
    parser.add_argument("-f", nargs="+", type=int, metavar="FOLD", help="folds. Default: all with a validation")


def find_trained_folds(args: argparse.Namespace) -> TrainedFolds:
    """Read the validation predictions of the model that the flags name.

    Raises:
        NNUNet3DCTError: something of it is missing or does not fit.
    """
    from nnunet_3dct.evaluation.trained_folds import find_trained_folds
    from nnunet_3dct.paths import find_model_folder

    return find_trained_folds(
        find_model_folder(args.d, args.tr, args.p, args.c), args.f, getattr(args, "class_names", None)
    )
