"""Class metrics from true classes, predicted classes and probabilities.

Point metrics are scikit-learn's. Averages run over the classes that occur in the truth: a class without a
case has no recall, so its own entries are None and it is listed under ``classes_absent_from_truth``. Where all cases
are of one class, what compares two (AUC, average precision, kappa, Matthews) is None, with the reason beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    classification_report,
    cohen_kappa_score,
    confusion_matrix,
    matthews_corrcoef,
    precision_recall_fscore_support,
    roc_auc_score,
)

from nnunet_3dct.evaluation.reliability import calibration_metrics
from nnunet_3dct.evaluation.resampled_metrics import PER_CLASS
from nnunet_3dct.formats.metrics_class import ClassMetricName, ClassMetrics, PerClassName

# what is shown, and under which name
CLASS_METRICS: dict[ClassMetricName, str] = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1_macro": "F1, macro",
    "f1_weighted": "F1, weighted",
    "auc_macro": "AUC, macro",
    "average_precision_macro": "Average precision, macro",
    "cohen_kappa": "Cohen's kappa",
    "matthews_corrcoef": "Matthews correlation",
    "brier_score": "Brier score (0 best, 2 worst)",
    "expected_calibration_error": "Expected calibration error",
}
METRICS_OF_A_CLASS: dict[PerClassName, str] = {
    "f1_per_class": "F1",
    "precision_per_class": "Precision",
    "recall_per_class": "Recall",
    "auc_per_class": "AUC",
    "average_precision_per_class": "Average precision",
}


def class_metrics(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, class_names: Sequence[str]
) -> ClassMetrics:
    """Compute accuracy, F1, precision, recall, kappa, Matthews' coefficient, AUC, average precision and calibration.

    ``*_macro`` and ``balanced_accuracy`` average over the classes present in ``truth``, ``*_weighted`` by
    their numbers of cases, ``*_micro`` counts all cases. A class that is never predicted has precision 0. AUC and
    average precision are one against the rest for each present class, then averaged.

    Args:
        truth: true classes ``(N,)``, 0-based.
        predicted: predicted classes ``(N,)``.
        probabilities: ``(N, C)``, or None: AUC and calibration are None then.
        class_names: C names.
    """
    everything = list(range(len(class_names)))
    present = [int(k) for k in np.unique(truth)]
    absent = [k for k in everything if k not in present]
    confusion: list[list[int]] = confusion_matrix(truth, predicted, labels=everything).tolist()
    metrics: dict[str, Any] = {
        "accuracy": float(accuracy_score(truth, predicted)),
        **_ranking(truth, probabilities, class_names),
        **_beyond_chance(truth, predicted),
        "class_names": list(class_names),
        "confusion_matrix": confusion,
        "confusion_matrix_by_name": {
            name: dict(zip(class_names, row, strict=True)) for name, row in zip(class_names, confusion, strict=True)
        },
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
            metrics[f"{name}_{average}"] = float(scores[average][position])
        per_class = scores[None][position].tolist()
        metrics[f"{name}_per_class"] = [None if k in absent else value for k, value in enumerate(per_class)]
        report_key = "f1-score" if name == "f1" else name
        report["macro avg"][report_key] = metrics[f"{name}_macro"]
        for k in absent:
            report[class_names[k]][report_key] = None
    metrics["classification_report"] = report
    metrics["balanced_accuracy"] = metrics["recall_macro"]  # the mean recall of the present classes
    metrics["calibration"] = None if probabilities is None else calibration_metrics(truth, probabilities)
    for key in ("brier_score", "expected_calibration_error"):
        metrics[key] = metrics["calibration"] and metrics["calibration"][key]
    return cast(ClassMetrics, metrics)


def _ranking(truth: np.ndarray, probabilities: np.ndarray | None, class_names: Sequence[str]) -> dict[str, Any]:
    """AUC and average precision, one against the rest."""
    present, sizes = np.unique(truth, return_counts=True)
    if probabilities is None or len(present) == 1:
        reason = f"all cases are of the class {class_names[present[0]]}; an AUC compares two"
        if probabilities is None:
            reason = "the predictions hold classes but no probabilities"
        kinds = ("macro", "weighted", "per_class")
        undefined = dict.fromkeys(f"{name}_{kind}" for name in ("auc", "average_precision") for kind in kinds)
        return {**undefined, "auc_undefined_reason": reason}
    scores: dict[str, Any] = {"auc_undefined_reason": None}
    for name, score in (("auc", roc_auc_score), ("average_precision", average_precision_score)):
        values = {int(k): float(score(truth == k, probabilities[:, k])) for k in present}
        scores[f"{name}_macro"] = float(np.mean(list(values.values())))
        scores[f"{name}_weighted"] = float(np.average(list(values.values()), weights=sizes))
        scores[name + PER_CLASS] = [values.get(k) for k in range(len(class_names))]
    return scores


def _beyond_chance(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float | None]:
    if len(np.unique(truth)) == 1:
        return {"cohen_kappa": None, "matthews_corrcoef": None}
    return {
        "cohen_kappa": float(cohen_kappa_score(truth, predicted)),
        "matthews_corrcoef": float(matthews_corrcoef(truth, predicted)),
    }
