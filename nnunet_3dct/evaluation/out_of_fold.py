"""Validation predictions of a model's folds: each case predicted by a network that has not seen it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.formats.class_files import CLASS_SUFFIX, ClassPrediction, read_predictions


@dataclass(frozen=True)
class FoldPredictions:
    """What the network of one fold says of its validation cases.

    Attributes:
        fold: its number.
        folder: with segmentations and class files.
        predictions: case -> class.
        head_weights: fingerprint of the head that predicted; None where the files state none.
    """

    fold: int
    folder: Path
    predictions: dict[str, ClassPrediction]
    head_weights: str | None


def read_out_of_fold(
    model: Path, splits: Sequence[Mapping[str, Sequence[str]]], folds: Sequence[int] | None = None
) -> list[FoldPredictions]:
    """Read ``fold_X/validation`` of a model.

    Args:
        model: folder of the trained model.
        splits: nnU-Net's ``splits_final.json``.
        folds: which; None for all that hold validation predictions.

    Raises:
        EvaluationError: a fold has no predictions, or others than its split says; a case is in two folds.
    """
    if folds is None:
        folds = [fold for fold in range(len(splits)) if any(_folder(model, fold).glob(f"*{CLASS_SUFFIX}"))]
        if not folds:
            raise EvaluationError(
                f"{model}: expected a fold with validation/*{CLASS_SUFFIX}, found none. Train a fold to its end, or "
                "run nnUNetv2_train with --val."
            )
    found = [_read_fold(_folder(model, fold), fold, splits) for fold in folds]
    seen: dict[str, int] = {}
    for one in found:
        for case in one.predictions:
            if case in seen:
                raise EvaluationError(
                    f"Case {case}: expected in the validation of one fold, found it in folds {seen[case]} and "
                    f"{one.fold}. The splits overlap; make them anew with nnUNet3DCT_splits and train again."
                )
            seen[case] = one.fold
    return found


def _folder(model: Path, fold: int) -> Path:
    return model / f"fold_{fold}" / "validation"


def _read_fold(folder: Path, fold: int, splits: Sequence[Mapping[str, Sequence[str]]]) -> FoldPredictions:
    if fold >= len(splits):
        raise EvaluationError(f"-f: expected folds 0 to {len(splits) - 1} (splits_final.json), found {fold}.")
    predictions, _ = read_predictions(folder)
    expected = set(splits[fold]["val"])
    advice = "Run the validation anew (nnUNetv2_train ... --val), or restore the splits that the training used."
    for cases, words in (
        (expected - set(predictions), "have no class prediction"),
        (set(predictions) - expected, "are no validation cases of this fold in splits_final.json"),
    ):
        if cases:
            raise EvaluationError(
                f"{folder}: expected the {len(expected)} validation cases of fold {fold}, found {len(predictions)}; "
                f"these {words}: {listing(sorted(cases), 5)}. {advice}"
            )
    return FoldPredictions(fold, folder, predictions, _head_weights(folder, sorted(predictions), fold))


def _head_weights(folder: Path, cases: Sequence[str], fold: int) -> str | None:
    """The one fingerprint that all class files of a fold state."""
    found = set()
    for case in cases:
        path = folder / f"{case}{CLASS_SUFFIX}"
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        found.add(content.get("produced_by", {}).get("head_weights", {}).get(str(fold)))
    if len(found) > 1:
        raise EvaluationError(
            f"{folder}: expected predictions of one network, found those of {len(found)}. Run the validation anew "
            "(nnUNetv2_train ... --val)."
        )
    return found.pop()
