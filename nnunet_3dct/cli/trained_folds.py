"""What the commands on a model's out-of-fold predictions share: flags, and finding model, splits and labels."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_3dct.errors import CheckpointError, listing

if TYPE_CHECKING:
    from nnunet_3dct.data.splits import Splits
    from nnunet_3dct.evaluation.out_of_fold import FoldPredictions
    from nnunet_3dct.formats.class_labels import ClassLabels


@dataclass(frozen=True)
class TrainedFolds:
    """A model with validation predictions.

    Attributes:
        model: its folder.
        preprocessed: folder of the dataset, with ``gt_segmentations``.
        folds: what their networks say of their validation cases.
        labels: class of each case, and the file that it was read from.
        class_names: of ``dataset.json``, None if it has none.
        warnings: what makes an estimate from these folds less than it seems.
    """

    model: Path
    preprocessed: Path
    folds: list[FoldPredictions]
    labels: ClassLabels
    class_names: list[str] | None
    warnings: list[str]


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """nnU-Net's flags that name a model."""
    parser.add_argument("-d", required=True, metavar="DATASET", help="name or id of a preprocessed dataset")
    parser.add_argument("-tr", default="nnUNetTrainer_CLSHeadSumFT", help="trainer. Default: %(default)s")
    parser.add_argument("-p", default="nnUNetPlans", help="plans. Default: %(default)s")
    parser.add_argument("-c", default="3d_fullres", help="configuration. Default: %(default)s")
    parser.add_argument("-f", nargs="+", type=int, metavar="FOLD", help="folds. Default: all with a validation")


def find_dataset(model: Path) -> tuple[Path, Splits, ClassLabels]:
    """Preprocessed folder, splits and class labels of the dataset that a model was trained on.

    Raises:
        NNUNet3DCTError: one of them is missing, or malformed.
    """
    from nnunet_3dct.data.splits import read_splits
    from nnunet_3dct.formats.class_labels import read_dataset_labels
    from nnunet_3dct.paths import PREPROCESSED, nnunet_folder

    name = model.parent.name
    return nnunet_folder(PREPROCESSED) / name, read_splits(name), read_dataset_labels(name)


def find_trained_folds(args: argparse.Namespace) -> TrainedFolds:
    """Find and read what the flags name.

    Raises:
        NNUNet3DCTError: something of it is missing or does not fit.
    """

    from nnunet_3dct.evaluation.out_of_fold import read_out_of_fold
    from nnunet_3dct.formats.atomic import read_json
    from nnunet_3dct.formats.class_labels import check_class_names
    from nnunet_3dct.paths import DATASET_FILE, find_model_folder

    model = find_model_folder(args.d, args.tr, args.p, args.c)
    base, splits, labels = find_dataset(model)
    folds = read_out_of_fold(model, splits, args.f)
    description = read_json(model / DATASET_FILE, "Description of the model's dataset", CheckpointError)
    names = description.get("class_names")
    numbers = {p.num_classes for fold in folds for p in fold.predictions.values() if p.num_classes is not None}
    for number in () if getattr(args, "class_names", None) else numbers:  # names given with the command come first
        names = check_class_names(names, number, str(model / DATASET_FILE))
    return TrainedFolds(model, base, folds, labels, names, find_warnings(model, folds, splits))


def find_warnings(
    model: Path, folds: Sequence[FoldPredictions], splits: Sequence[Mapping[str, Sequence[str]]]
) -> list[str]:
    """What to know before believing an estimate: folds that are missing, networks that saw their validation cases."""
    from nnunet_3dct.formats.checkpoint import read_checkpoint

    warnings = []
    present = {fold.fold for fold in folds}
    missing = [fold for fold in range(len(splits)) if fold not in present]
    if missing:
        covered = sum(len(fold.predictions) for fold in folds)
        everything = len({case for split in splits for case in split["val"]})
        warnings.append(f"without fold{'s' * (len(missing) > 1)} {listing(missing)}: {covered} of {everything} cases")
    for fold in folds:
        path = fold.folder.parent / "checkpoint_final.pth"
        start: dict[str, Any] = (
            (read_checkpoint(path, mmap=True).get("mt_started_from") or {}) if path.is_file() else {}
        )
        if start and str(start.get("fold")) != str(fold.fold):
            warnings.append(
                f"fold {fold.fold} started from {start['path']} of fold {start.get('fold')}, a network that has seen "
                "validation cases of this fold if both share their splits: its scores are too good"
            )
    return warnings
