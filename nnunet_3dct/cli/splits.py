"""``nnUNet3DCT_splits``: cross-validation folds stratified by class."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.errors import SettingsError


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
    """Write the splits and print how the classes are spread."""
    run_command(build_parser(), _write, argv)


def _write(args: argparse.Namespace) -> None:
    from nnunet_3dct.data.splits import count_patients, folds_without_class, stratified_splits, write_splits
    from nnunet_3dct.formats.class_labels import read_dataset_labels, require_class_labels
    from nnunet_3dct.paths import DATASET_FILE, PREPROCESSED, RAW, dataset_name, nnunet_folder, splits_path
    from nnunet_3dct.settings import Settings
    from nnunet_3dct.upstream import get_filenames_of_train_images_and_targets

    raw, _ = nnunet_folder(RAW), nnunet_folder(PREPROCESSED)
    name = dataset_name(args.d)
    if not (raw / name / DATASET_FILE).is_file():
        raise SettingsError(f"-d {args.d}: expected {DATASET_FILE} in {raw / name}, found none. Check -d and {RAW}.")
    cases = list(get_filenames_of_train_images_and_targets(str(raw / name)))
    labels = read_dataset_labels(name)
    require_class_labels(labels, cases, Settings.from_env().num_cls)
    splits = stratified_splits(cases, labels.by_case, labels.groups, args.k, args.seed, args.d)
    path = splits_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_splits(splits, path, args.overwrite)

    patients = f" of {count_patients(cases, labels.groups)} patients" if labels.groups else ""
    print(f"{len(cases)} cases{patients}, classes from {labels.source}")
    print("fold   training cases of each class   validation cases of each class")
    for fold, split in enumerate(splits):
        train, val = (" ".join(f"{n:4}" for n in labels.counts(split[part])) for part in ("train", "val"))
        print(f"{fold:4}   {train:<30}   {val}")
    for problem in folds_without_class(splits, labels.by_case, labels.num_classes):
        print(f"warning: {problem}")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
