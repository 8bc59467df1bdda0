"""Class metrics of a prediction folder against the class labels of the dataset.

Point metrics are scikit-learn's. Averages run over the classes that occur in the truth: a class without a
case has no recall, so its own entries are None and it is listed under ``classes_absent_from_truth``.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    classification_report,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from nnunet_3dct.class_labels import UNKNOWN, ClassLabels, load_class_labels
from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.bootstrap import confidence_intervals

JSON_SUFFIX = "_classification.json"
PROBABILITIES_CSV = "subtype_probabilities.csv"
RESULTS_CSV = "subtype_results.csv"
SUM_TOLERANCE = 1e-3
CALIBRATION_BINS = 10
WIDE_INTERVAL = 0.1  # half-width above which a metric is called uncertain
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
        raise EvaluationError(
            f"{path}: expected an object with pred or probs, found {type(content).__name__}."
        )
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


def class_metrics(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, class_names: Sequence[str]
) -> dict[str, Any]:
    """Compute accuracy, F1, precision, recall, AUC and calibration.

    ``*_macro`` and ``balanced_accuracy`` average over the classes present in ``truth``, ``*_weighted`` by
    their numbers of cases, ``*_micro`` counts all cases. A class that is never predicted has precision 0. The
    AUC is one against the rest for each present class, then averaged.

    Args:
        truth: true classes ``(N,)``, 0-based.
        predicted: predicted classes ``(N,)``.
        probabilities: ``(N, C)``, or None: AUC and calibration are None then.
        class_names: C names.
    """
    everything = list(range(len(class_names)))
    present = [int(k) for k in np.unique(truth)]
    absent = [k for k in everything if k not in present]
    metrics: dict[str, Any] = {
        "accuracy": accuracy_score(truth, predicted),
        **_auc(truth, probabilities, class_names),
        "class_names": list(class_names),
        "confusion_matrix": confusion_matrix(truth, predicted, labels=everything),
        "classes_absent_from_truth": [class_names[k] for k in absent],
        "classes_never_predicted": [class_names[k] for k in everything if k not in predicted],
        "n_samples": len(truth),
    }
    report = classification_report(
        truth, predicted, labels=everything, target_names=class_names, output_dict=True, zero_division=0.0
    )
    averages = {"macro": present, "micro": everything, "weighted": present, None: everything}
    scores = {
        average: precision_recall_fscore_support(
            truth, predicted, labels=labels, average=average, zero_division=0.0
        )
        for average, labels in averages.items()
    }
    for position, name in enumerate(("precision", "recall", "f1")):
        for average in ("macro", "micro", "weighted"):
            metrics[f"{name}_{average}"] = scores[average][position]
        per_class = scores[None][position].tolist()
        metrics[f"{name}_per_class"] = [None if k in absent else value for k, value in enumerate(per_class)]
        report_key = "f1-score" if name == "f1" else name
        report["macro avg"][report_key] = metrics[f"{name}_macro"]
        for k in absent:
            report[class_names[k]][report_key] = None
    metrics["classification_report"] = report
    metrics["balanced_accuracy"] = metrics[
        "recall_macro"
    ]  # by definition: mean recall of the present classes
    metrics["calibration"] = None if probabilities is None else calibration(truth, probabilities)
    return metrics


def _auc(truth: np.ndarray, probabilities: np.ndarray | None, class_names: Sequence[str]) -> dict[str, Any]:
    present = np.unique(truth)
    if probabilities is None or len(present) == 1:
        reason = f"all cases are of the class {class_names[present[0]]}; an AUC compares two"
        if probabilities is None:
            reason = "the predictions hold classes but no probabilities"
        undefined = dict.fromkeys(("auc_macro", "auc_weighted", "auc_per_class"))
        return {**undefined, "auc_undefined_reason": reason}
    areas = {int(k): float(roc_auc_score(truth == k, probabilities[:, k])) for k in present}
    return {
        "auc_macro": np.mean(list(areas.values())),
        "auc_weighted": np.average(list(areas.values()), weights=[np.sum(truth == k) for k in areas]),
        "auc_per_class": [areas.get(k) for k in range(len(class_names))],
        "auc_undefined_reason": None,
    }


def calibration(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Compute how far the probabilities ``(N, C)`` can be taken at their word.

    ``brier_score``: squared distance between probabilities and one-hot truth, summed over the classes and
    averaged over the cases: 0 is best, 2 worst, uniform guessing gives 1 - 1/C (Brier 1950).
    ``expected_calibration_error``: the cases fall into ten equal bins of their highest probability; the mean
    over the bins, weighted by cases, of |share correct - mean highest probability| (Guo et al. 2017).
    """
    one_hot = np.eye(probabilities.shape[1])[truth]
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.abs(np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS))
    return {
        "brier_score": np.mean(np.sum((probabilities - one_hot) ** 2, axis=1)),
        "expected_calibration_error": gaps.sum() / len(truth),
        "bins": CALIBRATION_BINS,
    }


def evaluate_classification(
    predictions_folder: Path,
    labels_file: Path,
    class_names: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare a prediction folder with the class labels.

    Labels without a prediction are normal, since the labels file holds the training cases too; they are
    counted. Predicted cases with the label -1 are left out and listed.

    Returns:
        The content of ``classification_metrics.json``: :func:`class_metrics`, ``confidence_intervals``
        (metric -> [low, high]; None if ``resamples`` is 0), ``warnings``, and which cases were used.

    Raises:
        EvaluationError: predictions and labels cannot be compared.
        ClassLabelsError: the labels file cannot be used.
    """
    if resamples < 0 or seed < 0:
        raise EvaluationError(
            f"--bootstrap and --seed: expected integers >= 0, found {resamples} and {seed}."
        )
    predictions, source = read_predictions(Path(predictions_folder))
    labels = load_class_labels(Path(labels_file))
    names = check_predictions(predictions, labels, class_names)
    cases = [case for case in predictions if labels.by_case[case] != UNKNOWN]
    rows = [predictions[case].probabilities for case in cases]
    given = [row for row in rows if row is not None]
    truth = np.array([labels.by_case[case] for case in cases])
    predicted = np.array([predictions[case].label for case in cases])
    probabilities = np.stack(given) if len(given) == len(rows) else None

    metrics = class_metrics(truth, predicted, probabilities, names)
    if given and probabilities is None:
        without = [case for case, row in zip(cases, rows, strict=True) if row is None]
        metrics["auc_undefined_reason"] = f"these cases have no probabilities: {listing(without)}"
    intervals = None
    if resamples:
        intervals = confidence_intervals(truth, predicted, probabilities, resamples=resamples, seed=seed)
        metrics["bootstrap"] = {
            "method": "cases drawn with replacement within each true class; percentiles",
            "level": 0.95,
            "resamples": resamples,
            "seed": seed,
        }
    metrics["confidence_intervals"] = intervals
    metrics["warnings"] = _warnings(truth, names, intervals)
    metrics["source"] = source
    metrics["excluded_unknown_label"] = [case for case in predictions if labels.by_case[case] == UNKNOWN]
    metrics["n_labels_without_prediction"] = len(set(labels.by_case) - set(predictions))
    return metrics


def _warnings(
    truth: np.ndarray, names: Sequence[str], intervals: dict[str, tuple[float, float]] | None
) -> list[str]:
    found = []
    for name, count in zip(names, np.bincount(truth, minlength=len(names)), strict=True):
        if count == 0:
            found.append(f"{name}: no case of this class, its metrics are undefined")
        elif count == 1 and intervals:
            found.append(f"{name}: a single case, which never varies; the intervals are too narrow")
    half_widths = {name: (high - low) / 2 for name, (low, high) in (intervals or {}).items()}
    wide = max(half_widths, key=lambda name: half_widths[name], default=None)
    if wide is not None and half_widths[wide] > WIDE_INTERVAL:
        found.append(
            f"{len(truth)} cases are few: {wide.replace('_', ' ')} is known only to about "
            f"±{half_widths[wide]:.2f}; a smaller difference between two models says little"
        )
    return found


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write ``content`` as strictly valid JSON (NaN becomes null), complete or not at all.

    Raises:
        EvaluationError: the file cannot be written.
    """
    text = json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise EvaluationError(f"{path} cannot be written: {error}. Give another file with -o.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
