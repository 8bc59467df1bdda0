"""Class metrics of a prediction folder against the class labels of the dataset.

Point metrics are scikit-learn's. Averages run over the classes that occur in the truth: a class without a
case has no recall, so its own entries are None and it is listed under ``classes_absent_from_truth``.
"""

from __future__ import annotations

from collections.abc import Sequence
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

from nnunet_3dct.class_labels import UNKNOWN, load_class_labels
from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.bootstrap import confidence_intervals
from nnunet_3dct.evaluation.class_predictions import Prediction, check_predictions, read_predictions

CALIBRATION_BINS = 10
WIDE_INTERVAL = 0.1  # half-width above which a metric is called uncertain


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
        average: precision_recall_fscore_support(truth, predicted, labels=labels, average=average, zero_division=0.0)
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
    metrics["balanced_accuracy"] = metrics["recall_macro"]  # the mean recall of the present classes
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
        raise EvaluationError(f"--bootstrap and --seed: expected integers >= 0, found {resamples} and {seed}.")
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
    metrics["warnings"] = [
        *_contradictions({case: predictions[case] for case in cases}),
        *_warnings(truth, names, intervals),
    ]
    metrics["source"] = source
    metrics["excluded_unknown_label"] = [case for case in predictions if labels.by_case[case] == UNKNOWN]
    metrics["n_labels_without_prediction"] = len(set(labels.by_case) - set(predictions))
    return metrics


def _contradictions(predictions: dict[str, Prediction]) -> list[str]:
    """Name the cases whose stated class is less probable, by their own probabilities, than another one."""
    cases = [
        case
        for case, p in predictions.items()
        if p.probabilities is not None and p.probabilities[p.label] < p.probabilities.max()
    ]
    if not cases:
        return []
    return [
        f"pred is not the most probable class in {listing(cases)}; accuracy, F1, precision and recall "
        "follow pred, AUC and calibration follow the probabilities"
    ]


def _warnings(truth: np.ndarray, names: Sequence[str], intervals: dict[str, tuple[float, float]] | None) -> list[str]:
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
