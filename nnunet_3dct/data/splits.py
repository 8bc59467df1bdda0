"""Cross-validation splits with every class in every fold, as nnU-Net's ``splits_final.json``."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from nnunet_3dct.errors import ClassLabelsError, OutputError, SettingsError, listing
from nnunet_3dct.formats.atomic import write_json
from nnunet_3dct.formats.class_label_files import patients_of
from nnunet_3dct.formats.class_labels import UNKNOWN
from nnunet_3dct.formats.splits_file import PARTS, Splits
from nnunet_3dct.formats.splits_file import read_splits as read_splits
from nnunet_3dct.paths import SPLITS_FILE as SPLITS_FILE
from nnunet_3dct.upstream import generate_crossval_split

FOLDS = 5  # that nnU-Net makes by itself


def stratified_splits(
    cases: Sequence[str],
    classes: Mapping[str, int],
    groups: Mapping[str, str] | None = None,
    folds: int = FOLDS,
    seed: int = 12345,
    dataset: str = "DATASET",
) -> Splits:
    """scikit-learn's stratified folds; unknown cases (-1) are spread as a class of their own.

    Where every class has fewer cases than there are folds, nothing can be stratified and the folds are nnU-Net's
    own (with patients, scikit-learn's ``GroupKFold``).

    Args:
        cases: identifiers.
        classes: case -> class.
        groups: case -> patient; cases of one patient stay in one fold. Cases without an entry stand alone.
        folds: number of folds.
        seed: of the shuffling; nnU-Net's by default.
        dataset: name or id, for the message.

    Raises:
        ClassLabelsError: fewer cases, or patients, than folds.
    """
    cases = sorted(cases)
    units = patients_of(cases, groups or {})
    most = len(set(units))
    if not 2 <= folds <= most:
        number = f"{len(cases)} cases{f' of {most} patients' if groups else ''}"
        if most < 2:
            raise ClassLabelsError(f"Splits: expected at least 2 cases of different patients, found {number}.")
        raise ClassLabelsError(
            f"Splits: expected from 2 to {most} folds for {number}, found {folds}. Write the splits with fewer folds "
            f"before training: nnUNet3DCT_splits -d {dataset} -k {min(most, max(folds, 2))}"
        )
    strata = [classes.get(case, UNKNOWN) for case in cases]
    stratified = max(np.unique(strata, return_counts=True)[1]) >= folds
    if not stratified and not groups:
        return generate_crossval_split(cases, seed=seed, n_splits=folds)
    if not stratified:
        kind = GroupKFold(folds)
    else:
        kind = (StratifiedGroupKFold if groups else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class: folds_without_class says where it is missing
        parts = list(kind.split(cases, strata, units))
    if any(len(val) == 0 for _, val in parts):
        raise ClassLabelsError(
            f"Splits: {most} patients cannot be spread over {folds} folds, one stays empty. Write the splits with "
            f"fewer folds: nnUNet3DCT_splits -d {dataset} -k {folds - 1}"
        )
    return [{"train": [cases[i] for i in train], "val": [cases[i] for i in val]} for train, val in parts]


def count_patients(cases: Sequence[str], groups: Mapping[str, str]) -> int:
    """Number of patients whom ``cases`` come from; cases without an entry in ``groups`` stand alone."""
    return len(set(patients_of(cases, groups)))


def folds_without_class(splits: Splits, classes: Mapping[str, int], num_classes: int) -> list[str]:
    """One line for each fold and part that lacks a class, empty when all is well."""
    names = {"train": "training", "val": "validation"}
    return [
        f"fold {fold} has no {names[part]} case of class {k}"
        for fold, split in enumerate(splits)
        for part in ("train", "val")
        for k in range(num_classes)
        if all(classes.get(case, UNKNOWN) != k for case in split[part])
    ]


def check_splits(splits: Splits, cases: Sequence[str], groups: Mapping[str, str] | None = None) -> list[str]:
    """Compare splits with the cases of the dataset.

    Args:
        splits: of all folds.
        cases: identifiers of the training cases.
        groups: case -> patient.

    Returns:
        One line for each problem: cases that do not exist, a case twice in a part, cases or patients on both sides of
        a fold, cases validated in two folds, cases in no fold.
    """
    problems = []
    for number in range(len(splits)):
        problems += check_fold(splits, number, cases, groups)
    validated = Counter(case for fold in splits for case in set(fold["val"]))
    twice = sorted(case for case, times in validated.items() if times > 1)
    if twice:
        problems.append(f"cases are validated in more than one fold: {listing(twice)}")
    return problems + _left_out(splits, cases)


def check_fold(splits: Splits, fold: int, cases: Sequence[str], groups: Mapping[str, str] | None = None) -> list[str]:
    """What of :func:`check_splits` concerns one fold: one line for each problem."""
    train, val = (set(splits[fold][part]) for part in PARTS)
    patients = groups or {}
    of_train, of_val = ({patients[case] for case in part if case in patients} for part in (train - val, val - train))
    kinds: dict[str, set[str]] = {
        "names cases that the dataset does not have": set(unknown_cases(splits[fold], cases)),
        "has cases in training and in validation": train & val,
        "has patients in training and in validation": of_train & of_val,
        "lists cases more than once": {c for part in PARTS for c, n in Counter(splits[fold][part]).items() if n > 1},
    }
    problems = [f"fold {fold} {what}: {listing(sorted(found))}" for what, found in kinds.items() if found]
    empty = [name for name, part in (("training", train), ("validation", val)) if not part]
    return problems + [f"fold {fold} has no {name} case" for name in empty]


def _left_out(splits: Splits, cases: Sequence[str]) -> list[str]:
    """One line if there are cases in no fold."""
    left_out = sorted(set(cases) - {case for fold in splits for part in PARTS for case in fold[part]})
    if not left_out:
        return []
    return [
        f"{len(left_out)} cases are in no fold, so none is trained on: {listing(left_out)}. Write the splits anew "
        "(nnUNet3DCT_splits --overwrite) before the next training"
    ]


def require_fold(
    path: Path, splits: Splits, fold: int, cases: Sequence[str], groups: Mapping[str, str] | None = None
) -> list[str]:
    """Check one fold before a training.

    Args:
        path: of the splits, for the message.
        splits, fold: of the training.
        cases: identifiers of the preprocessed cases.
        groups: case -> patient.

    Returns:
        One line for each doubt that does not keep the training from running.

    Raises:
        SettingsError: the fold names cases that were not preprocessed, or has no case to train on.
    """
    strangers = unknown_cases(splits[fold], cases)
    if strangers:
        raise SettingsError(
            f"{path}: fold {fold}: expected preprocessed cases, found also {listing(strangers)}. Preprocess them, or "
            "write the splits anew: nnUNet3DCT_splits --overwrite."
        )
    if not splits[fold]["train"]:
        raise SettingsError(f"{path}: fold {fold}: expected training cases, found none.")
    return check_fold(splits, fold, cases, groups) + _left_out(splits, cases)


def unknown_cases(fold: Mapping[str, Sequence[str]], cases: Sequence[str]) -> list[str]:
    """Cases of a fold that the dataset does not have, sorted."""
    return sorted({case for part in PARTS for case in fold[part]} - set(cases))


def write_splits(splits: Splits, path: Path, overwrite: bool = False) -> None:
    """Write nnU-Net's ``splits_final.json``.

    Raises:
        OutputError: it exists and ``overwrite`` is not set, or it cannot be written.
    """
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path}: expected no splits yet, found some. Trainings that used them would not fit new ones; "
            "add --overwrite to replace them all the same."
        )
    write_json(splits, path)
