"""Cross-validation splits with every class in every fold, as nnU-Net's ``splits_final.json``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from nnunet_3dct.errors import ClassLabelsError, OutputError
from nnunet_3dct.formats.atomic import write_json
from nnunet_3dct.formats.class_labels import UNKNOWN
from nnunet_3dct.upstream import generate_crossval_split

SPLITS_FILE = "splits_final.json"
Splits = list[dict[str, list[str]]]


def stratified_splits(
    cases: Sequence[str],
    classes: Mapping[str, int],
    groups: Mapping[str, str] | None = None,
    folds: int = 5,
    seed: int = 12345,
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

    Raises:
        ClassLabelsError: fewer cases, or patients, than folds.
    """
    cases = sorted(cases)
    units = [groups.get(case, f"\0{case}") for case in cases] if groups else list(cases)
    if not 2 <= folds <= len(set(units)):
        raise ClassLabelsError(
            f"Splits: expected from 2 to {len(set(units))} folds for {len(cases)} cases"
            f"{f' of {len(set(units))} patients' if groups else ''}, found {folds}. Ask for another number (-k)."
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
            f"Splits: {len(set(units))} patients cannot be spread over {folds} folds, one stays empty. "
            "Ask for fewer (-k)."
        )
    return [{"train": [cases[i] for i in train], "val": [cases[i] for i in val]} for train, val in parts]


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
