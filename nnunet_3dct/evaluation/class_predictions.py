"""Class predictions of a folder: reading them, and checking them against labels and class names."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.class_labels import UNKNOWN, ClassLabels, load_class_labels
from nnunet_3dct.errors import EvaluationError, listing

JSON_SUFFIX = "_classification.json"
PROBABILITIES_CSV = "subtype_probabilities.csv"
RESULTS_CSV = "subtype_results.csv"
SUM_TOLERANCE = 1e-3
_IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".tif", ".tiff", ".png", ".bmp")
_REPORT_KEYS = {"accuracy", "macro avg", "weighted avg"}


@dataclass(frozen=True)
class Prediction:
    """One case: class, class probabilities ``(C,)``, number of classes; the last two None if not stated."""

    label: int
    probabilities: np.ndarray | None
    num_classes: int | None


def read_predictions(folder: Path) -> tuple[dict[str, Prediction], str]:
    """Read the class predictions of a folder.

    The first of these that exists is used: ``<case>_classification.json`` files;
    ``subtype_probabilities.csv`` (``Names,<class>,...``; the class is the most probable one);
    ``subtype_results.csv`` (``Names,Subtype``).

    Returns:
        Predictions by case, and what they were read from.

    Raises:
        EvaluationError: there are none, or one of them cannot be used.
    """
    if not folder.is_dir():
        raise EvaluationError(f"Predictions folder {folder} does not exist. Check the path.")
    files = sorted(folder.glob(f"*{JSON_SUFFIX}"))
    if files:
        predictions = {path.name[: -len(JSON_SUFFIX)]: _from_json(path) for path in files}
        source = f"*{JSON_SUFFIX}"
    elif (folder / PROBABILITIES_CSV).is_file():
        predictions, source = _from_probabilities_csv(folder / PROBABILITIES_CSV), PROBABILITIES_CSV
    elif (folder / RESULTS_CSV).is_file():
        labels = load_class_labels(folder / RESULTS_CSV).by_case
        predictions = {case: Prediction(label, None, None) for case, label in labels.items()}
        source = RESULTS_CSV
    else:
        raise EvaluationError(
            f"{folder} holds no class predictions: expected <case>{JSON_SUFFIX} files, "
            f"{PROBABILITIES_CSV} or {RESULTS_CSV}. Was the prediction written to another folder (-co)?"
        )
    if not predictions:
        raise EvaluationError(f"{folder / source}: expected one row for each case, found none.")
    return predictions, source


def _from_json(path: Path) -> Prediction:
    """Use ``probs``, else the softmax of ``logits``, else ``pred`` alone; a stated ``pred`` is the class."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}. Predict the case again.") from error
    if not isinstance(content, dict):
        raise EvaluationError(f"{path}: expected an object with pred or probs, found {type(content).__name__}.")
    probabilities = None
    if content.get("probs") is not None:
        probabilities = _vector(content["probs"], f"{path}: probs")
        _check_probabilities(probabilities, str(path))
    elif content.get("logits") is not None:
        logits = _vector(content["logits"], f"{path}: logits")
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
    num_classes = None if content.get("num_classes") is None else _integer(content, "num_classes", path)
    if probabilities is not None:
        if num_classes not in (None, len(probabilities)):
            raise EvaluationError(
                f"{path}: num_classes is {num_classes} but there are {len(probabilities)} class values."
            )
        num_classes = len(probabilities)
    if content.get("pred") is not None:
        return Prediction(_integer(content, "pred", path), probabilities, num_classes)
    if probabilities is None:
        raise EvaluationError(f"{path}: expected pred, probs or logits, found the keys {sorted(content)}.")
    return Prediction(int(probabilities.argmax()), probabilities, num_classes)


def _from_probabilities_csv(path: Path) -> dict[str, Prediction]:
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}.") from error
    if not rows or rows[0][:1] != ["Names"] or len(rows[0]) < 3:
        found = ",".join(rows[0]) if rows else "an empty file"
        raise EvaluationError(f"{path}: expected the header Names,<class>,<class>,..., found {found}.")
    predictions: dict[str, Prediction] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        where = f"{path}, line {number} ({row[0]})"
        if len(row) != len(rows[0]):
            raise EvaluationError(f"{where}: expected {len(rows[0])} columns, found {len(row)}.")
        ending = next((e for e in _IMAGE_ENDINGS if row[0].endswith(e)), "")
        case = row[0].removesuffix(ending)
        if case in predictions:
            raise EvaluationError(f"{where}: the case is listed more than once.")
        probabilities = _vector(row[1:], where)
        _check_probabilities(probabilities, where)
        predictions[case] = Prediction(int(probabilities.argmax()), probabilities, len(probabilities))
    return predictions


def _vector(values: object, where: str) -> np.ndarray:
    try:
        vector = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        vector = np.empty(0)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise EvaluationError(f"{where}: expected one finite number for each class, found {values}.")
    return vector


def _integer(content: dict[str, Any], key: str, path: Path) -> int:
    value = content[key]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise EvaluationError(f"{path}: expected an integer >= 0 for {key}, found {content[key]!r}.")
    return value


def _check_probabilities(probabilities: np.ndarray, where: str) -> None:
    total = float(probabilities.sum())
    if abs(total - 1) > SUM_TOLERANCE or probabilities.min() < 0:
        raise EvaluationError(
            f"{where}: expected probabilities >= 0 with the sum 1 (tolerance {SUM_TOLERANCE}), "
            f"found {probabilities.tolist()} with the sum {total:.6g}. Predict the case again."
        )


def check_predictions(
    predictions: dict[str, Prediction], labels: ClassLabels, class_names: Sequence[str] | None
) -> list[str]:
    """Check that predictions, labels and class names speak of the same cases and classes.

    Returns:
        The class names; ``class0``, ``class1``, ... if none are given.

    Raises:
        EvaluationError: they do not; the message names the case and both values.
    """
    missing = sorted(set(predictions) - set(labels.by_case))
    if missing:
        some = "none of the" if len(missing) == len(predictions) else f"not all of the {len(predictions)}"
        raise EvaluationError(
            f"{labels.source} holds {some} predicted cases. Predicted without a label: {listing(missing)}; "
            f"the labels file holds {listing(sorted(labels.by_case), 3)}. "
            "Add the labels (-1 for unknown) or take the right file."
        )
    if all(labels.by_case[case] == UNKNOWN for case in predictions):
        raise EvaluationError(
            f"All {len(predictions)} predicted cases have the label -1 (unknown) in {labels.source}; "
            "expected at least one with a class."
        )
    stated = {case: p.num_classes for case, p in predictions.items() if p.num_classes is not None}
    first = next(iter(stated), None)
    for case, number in stated.items():
        if first is not None and number != stated[first]:
            raise EvaluationError(
                f"The predictions differ in their number of classes: {first} has {stated[first]}, {case} has "
                f"{number}. The folder mixes runs of two models; predict into an empty folder."
            )
    num_classes = labels.num_classes if first is None else stated[first]
    assert num_classes is not None
    names = list(class_names or [f"class{k}" for k in range(num_classes)])
    if len(names) != num_classes:
        source = labels.source if first is None else "the predictions"
        raise EvaluationError(
            f"--class-names: expected {num_classes} names, as many as {source} have classes; "
            f"found {len(names)}: {names}."
        )
    if len(set(names)) < len(names) or _REPORT_KEYS & set(names):
        raise EvaluationError(
            f"--class-names: expected distinct names, none of them {sorted(_REPORT_KEYS)}; found {names}."
        )
    for case, label in labels.by_case.items():
        if label >= num_classes:
            raise EvaluationError(
                f"Case {case}: its label in {labels.source} is {label}, but the predictions know only the "
                f"{num_classes} classes 0 to {num_classes - 1}."
            )
    for case, prediction in predictions.items():
        if not 0 <= prediction.label < num_classes:
            raise EvaluationError(
                f"Case {case}: its predicted class is {prediction.label}, expected 0 to {num_classes - 1} "
                f"({num_classes} classes)."
            )
    return names
