"""Class metrics of a prediction folder against the class labels of the dataset; see :func:`class_metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.bootstrap import class_intervals, draw_counts, percentile_interval, resampled_metrics
from nnunet_3dct.evaluation.class_metrics import class_metrics
from nnunet_3dct.formats.class_files import ClassPrediction, read_predictions
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels, load_class_labels

WIDE_INTERVAL = 0.1  # half-width above which a metric is called uncertain
WATCHED = ("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "auc_macro")  # of these


@dataclass(frozen=True)
class ClassifiedCases:
    """Predicted cases whose class is known.

    Attributes:
        cases: N identifiers.
        truth, predicted: classes ``(N,)``.
        probabilities: ``(N, C)``; None where a case has none.
        names: of the C classes.
        without_probabilities: cases that have none, if others have.
    """

    cases: list[str]
    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None
    names: list[str]
    without_probabilities: list[str]


def classified_cases(
    predictions: dict[str, ClassPrediction], labels: ClassLabels, class_names: Sequence[str] | None
) -> ClassifiedCases:
    """Put predictions and labels side by side, without the cases whose class is unknown.

    Raises:
        EvaluationError: they do not fit each other, see :func:`check_predictions`.
    """
    names = check_predictions(predictions, labels, class_names)
    cases = [case for case in predictions if labels.by_case[case] != UNKNOWN]
    rows = {case: predictions[case].probabilities for case in cases}
    given = [row for row in rows.values() if row is not None]
    complete = len(given) == len(cases)
    return ClassifiedCases(
        cases,
        np.array([labels.by_case[case] for case in cases]),
        np.array([predictions[case].label for case in cases]),
        np.stack(given) if complete else None,
        names,
        [] if complete or not given else [case for case, row in rows.items() if row is None],
    )


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
    listed. Predicted cases with the label -1 are left out and listed.

    Returns:
        The content of ``classification_metrics.json``: :func:`class_metrics`, ``confidence_intervals``
        (metric -> [low, high]; None if ``resamples`` is 0), ``confidence_intervals_per_class`` (metric -> one
        such pair for each class, None for a class without a case), ``warnings``, and which cases were used.

    Raises:
        EvaluationError: predictions and labels cannot be compared.
        ClassLabelsError: the labels file cannot be used.
    """
    check_resampling(resamples, seed)
    predictions, source = read_predictions(Path(predictions_folder))
    labels = load_class_labels(Path(labels_file))
    metrics = evaluate_predictions(predictions, labels, class_names, resamples=resamples, seed=seed)
    return {**metrics, "source": source}


def check_resampling(resamples: int, seed: int) -> None:
    """Raise an EvaluationError for negative numbers."""
    if resamples < 0 or seed < 0:
        raise EvaluationError(f"--bootstrap and --seed: expected integers >= 0, found {resamples} and {seed}.")


def evaluate_predictions(
    predictions: dict[str, ClassPrediction],
    labels: ClassLabels,
    class_names: Sequence[str] | None,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """What :func:`evaluate_classification` returns, from predictions in memory."""
    found = classified_cases(predictions, labels, class_names)
    metrics = class_metrics(found.truth, found.predicted, found.probabilities, found.names)
    if found.without_probabilities:
        metrics["auc_undefined_reason"] = f"these cases have no probabilities: {listing(found.without_probabilities)}"
    metrics |= _intervals(found, resamples, seed)
    metrics["warnings"] = [
        *_contradictions({case: predictions[case] for case in found.cases}),
        *_warnings(found.truth, found.names, metrics["confidence_intervals"]),
    ]
    metrics["excluded_unknown_label"] = [case for case in predictions if labels.by_case[case] == UNKNOWN]
    metrics["labels_without_prediction"] = sorted(set(labels.by_case) - set(predictions))
    metrics["n_labels_without_prediction"] = len(metrics["labels_without_prediction"])
    return metrics


def _intervals(found: ClassifiedCases, resamples: int, seed: int) -> dict[str, Any]:
    if not resamples:
        return {"confidence_intervals": None, "confidence_intervals_per_class": None}
    counts = draw_counts(found.truth, resamples, seed)
    values = resampled_metrics(counts, found.truth, found.predicted, found.probabilities, len(found.names))
    return {
        "confidence_intervals": {name: percentile_interval(row) for name, row in values.items() if row.ndim == 1},
        "confidence_intervals_per_class": class_intervals(values),
        "bootstrap": {
            "method": "cases drawn with replacement within each true class; percentiles",
            "level": 0.95,
            "resamples": resamples,
            "seed": seed,
        },
    }


def _contradictions(predictions: Mapping[str, ClassPrediction]) -> list[str]:
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
    half_widths = {name: (high - low) / 2 for name, (low, high) in (intervals or {}).items() if name in WATCHED}
    wide = max(half_widths, key=lambda name: half_widths[name], default=None)
    if wide is not None and half_widths[wide] > WIDE_INTERVAL:
        found.append(
            f"{len(truth)} cases are few: {wide.replace('_', ' ')} is known only to about "
            f"±{half_widths[wide]:.2f}; a smaller difference between two models says little"
        )
    return found


_REPORT_KEYS = {"accuracy", "macro avg", "weighted avg"}


def check_predictions(
    predictions: dict[str, ClassPrediction], labels: ClassLabels, class_names: Sequence[str] | None
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
