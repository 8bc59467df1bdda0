"""Validation predictions of a model's folds: each case predicted by a network that has not seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_3dct.errors import EvaluationError, SettingsError, listing
from nnunet_3dct.formats.class_files import CLASS_FILES, CLASS_SUFFIX, class_file_path, classified_in, read_class_file
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.prediction_folders import read_predictions
from nnunet_3dct.formats.splits_file import Splits

SHOWN = 5


@dataclass(frozen=True)
class FoldPredictions:
    """What the network of one fold says of its validation cases.

    Attributes:
        fold: its number.
        folder: with segmentations and class files.
        predictions: case -> class, of the validation cases of this fold alone.
        head_weights: fingerprint of the head that predicted; None where the files state none.
        left_over: cases of an earlier training with other splits, whose files still lie in the folder.
    """

    fold: int
    folder: Path
    predictions: dict[str, ClassPrediction]
    head_weights: str | None
    left_over: list[str] = field(default_factory=list)


def read_out_of_fold(model: Path, splits: Splits, folds: Sequence[int] | None = None) -> list[FoldPredictions]:
    """Read ``fold_X/validation`` of a model.

    Class files of cases that are no validation cases of the fold come from an earlier training with other splits: they
    are left out, and named in ``left_over``, as long as all cases of the fold are there.

    Args:
        model: folder of the trained model.
        splits: nnU-Net's ``splits_final.json``.
        folds: which; None for all that hold validation predictions.

    Raises:
        SettingsError: there is no such fold.
        EvaluationError: predictions of a fold are missing, or of several networks; a case is in two folds.
    """
    if folds is None:
        folds = [fold for fold in range(len(splits)) if classified_in(_folder(model, fold))]
        if not folds:
            raise EvaluationError(
                f"{model}: expected a fold with validation/{CLASS_FILES}, found none. Train a fold to its end, or "
                "run nnUNetv2_train with --val."
            )
    read = [_read_fold(_folder(model, fold), fold, splits) for fold in folds]
    seen: dict[str, int] = {}
    for one in read:
        for case in one.predictions:
            if case in seen:
                raise EvaluationError(
                    f"Case {case}: expected in the validation of one fold, found it in folds {seen[case]} and "
                    f"{one.fold}. The splits overlap; make them anew with nnUNet3DCT_splits and train again."
                )
            seen[case] = one.fold
    return read


def _folder(model: Path, fold: int) -> Path:
    return model / f"fold_{fold}" / "validation"


def _read_fold(folder: Path, fold: int, splits: Splits) -> FoldPredictions:
    if not 0 <= fold < len(splits):
        raise SettingsError(f"Folds: expected 0 to {len(splits) - 1} (splits_final.json), found {fold}.")
    own = list(splits[fold]["val"])
    if not folder.is_dir():
        raise EvaluationError(
            f"{folder}: expected the validation of fold {fold}, found no such folder. Train the fold."
        )
    present = classified_in(folder)
    # files that are left over are not read: they may be of a network with other classes, or damaged
    tables = {} if present else read_predictions(folder)[0]
    present = present or list(tables)
    missing = sorted(set(own) - set(present))
    left_over = sorted(set(present) - set(own))
    if missing:
        raise EvaluationError(_incomplete(folder, fold, own, missing, left_over))
    predictions = {case: tables.get(case) or read_class_file(class_file_path(folder, case)) for case in sorted(own)}
    return FoldPredictions(fold, folder, predictions, _head_weights(folder, predictions, fold), left_over)


def _incomplete(folder: Path, fold: int, own: Sequence[str], missing: Sequence[str], left_over: Sequence[str]) -> str:
    """Say which files are missing and what helps, which depends on whether others are there instead."""
    files = listing([f"{case}{CLASS_SUFFIX}" for case in missing], SHOWN)
    message = (
        f"{folder}: expected a class file of each of the {len(own)} validation cases of fold {fold} in "
        f"splits_final.json; {len(missing)} are missing: {files}."
    )
    if not left_over:
        return f"{message} Run the validation of this fold again (nnUNetv2_train ... --val)."
    others = listing([f"{case}{CLASS_SUFFIX}" for case in left_over], SHOWN)
    return (
        f"{message} It holds {len(left_over)} of other cases instead: {others}. The fold was trained with other "
        "splits: restore the splits_final.json of that training, or train the fold again with the present one. "
        "Running the validation alone would predict cases that the network was trained on."
    )


def _head_weights(folder: Path, predictions: Mapping[str, ClassPrediction], fold: int) -> str | None:
    """The one fingerprint that all class files of a fold state."""
    cases: dict[str | None, list[str]] = {}
    for case, prediction in predictions.items():
        cases.setdefault(prediction.head_weights.get(str(fold)), []).append(case)
    if len(cases) > 1:
        shown = "; ".join(f"{listing(names, SHOWN)} ({weights or 'not stated'})" for weights, names in cases.items())
        raise EvaluationError(
            f"{folder}: expected predictions of one network, found those of {len(cases)}, by the head's weights: "
            f"{shown}. Run the validation of this fold again (nnUNetv2_train ... --val)."
        )
    return next(iter(cases), None)
