"""``nnUNet3DCT_splits``: cross-validation folds stratified by class."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_3dct.errors import NNUNet3DCTError, SettingsError


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_splits",
        description="Write nnU-Net's splits_final.json with every class in every fold; with a column Patient in "
        "classification.csv the cases of a patient stay together. Run it before stage 1, so that both stages "
        "share their folds.",
    )
    parser.add_argument("-d", required=True, metavar="DATASET", help="name or id of the dataset in nnUNet_raw")
    parser.add_argument("-k", type=int, default=5, metavar="FOLDS", help="number of folds. Default: %(default)s")
    parser.add_argument("--seed", type=int, default=12345, help="of the shuffling. Default: nnU-Net's, %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace splits that exist")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the splits and print how the classes are spread; exit with code 1 and one message on failure."""
    args = build_parser().parse_args(argv)
    try:
        _write(args)
    except NNUNet3DCTError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _write(args: argparse.Namespace) -> None:
    from nnunet_3dct.data.splits import SPLITS_FILE, folds_without_class, stratified_splits, write_splits
    from nnunet_3dct.formats.class_labels import find_class_labels, load_class_labels, require_class_labels
    from nnunet_3dct.settings import Settings
    from nnunet_3dct.upstream import (
        get_filenames_of_train_images_and_targets,
        maybe_convert_to_dataset_name,
        nnUNet_preprocessed,
        nnUNet_raw,
    )

    try:
        raw, preprocessed = Path(nnUNet_raw.require()), Path(nnUNet_preprocessed.require())
        name = maybe_convert_to_dataset_name(args.d)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(f"-d {args.d}: {error}") from error
    if not (raw / name / "dataset.json").is_file():
        raise SettingsError(f"-d {args.d}: expected dataset.json in {raw / name}, found none. Check -d and nnUNet_raw.")
    cases = list(get_filenames_of_train_images_and_targets(str(raw / name)))
    labels = load_class_labels(find_class_labels([preprocessed / name, raw / name]))
    require_class_labels(labels, cases, Settings.from_env().num_cls)
    splits = stratified_splits(cases, labels.by_case, labels.groups, args.k, args.seed)
    path = preprocessed / name / SPLITS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_splits(splits, path, args.overwrite)

    print(f"{len(cases)} cases" + (f" of {len(set(labels.groups.values()))} patients" if labels.groups else ""))
    print("fold   training cases of each class   validation cases of each class")
    for fold, split in enumerate(splits):
        train, val = (" ".join(f"{n:4}" for n in labels.counts(split[part])) for part in ("train", "val"))
        print(f"{fold:4}   {train:<30}   {val}")
    for problem in folds_without_class(splits, labels.by_case, labels.num_classes):
        print(f"warning: {problem}")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
