"""Class metrics of a prediction folder against the class labels of the dataset; see :func:`class_metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from nnunet_3dct.errors import listing
from nnunet_3dct.evaluation.bootstrap import check_resampling, class_intervals, draw_counts, metric_intervals
from nnunet_3dct.evaluation.class_metrics import class_metrics
from nnunet_3dct.evaluation.classified_cases import ClassifiedCases, classified_cases
from nnunet_3dct.evaluation.provenance import cases_without_basis, mixed_runs, unusual_cases
from nnunet_3dct.evaluation.resampled_metrics import resampled_metrics
from nnunet_3dct.formats.class_label_files import UNKNOWN
from nnunet_3dct.formats.class_labels import ClassLabels, load_class_labels
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.metrics_class import ClassificationMetrics, Interval
from nnunet_3dct.formats.prediction_folders import read_predictions

WIDE_INTERVAL = 0.1  # half-width above which a metric is called uncertain
WATCHED = ("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "auc_macro")  # of these


def evaluate_classification(
    predictions: Path | str,
    labels: Path | str,
    class_names: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> ClassificationMetrics:
    """Compare a prediction folder with the class labels.

    Labels without a prediction are normal, since the labels file holds the training cases too; they are
    listed. Predicted cases with the label -1 are left out and listed.

    Args:
        predictions: folder with ``<case>_classification.json`` files, ``subtype_probabilities.csv`` or
            ``subtype_results.csv``.
        labels: ``classification.json`` or ``classification.csv``.
        class_names: of the classes 0, 1, ...; None for ``class0``, ``class1``, ...
        resamples: of the bootstrap, 0 for no intervals.
        seed: of the resamples.

    Returns:
        The content of ``classification_metrics.json``: :func:`class_metrics`, ``confidence_intervals``
        (metric -> (low, high); None if ``resamples`` is 0), ``confidence_intervals_per_class`` (metric -> one
        such pair for each class, None for a class without a case), which cases were used, and ``warnings``, among
        them class files of several models or settings in one folder.

    Raises:
        SettingsError: a setting is out of range.
        EvaluationError: predictions and labels cannot be compared.
        ClassLabelsError: the labels file cannot be used.

    Examples:
        >>> import nnunet_3dct
        >>> metrics = nnunet_3dct.evaluate_classification(predictions, classes, ["low", "middle", "high"])
        >>> metrics["n_samples"], metrics["class_names"]
        (6, ['low', 'middle', 'high'])
        >>> low, high = metrics["confidence_intervals"]["f1_macro"]
        >>> low <= metrics["f1_macro"] <= high
        True
    """
    check_resampling(resamples, seed)
    folder = Path(predictions)
    found, source = read_predictions(folder)
    metrics = evaluate_predictions(found, load_class_labels(Path(labels)), class_names, resamples=resamples, seed=seed)
    doubts = [*mixed_runs(found, folder), *cases_without_basis(found), *unusual_cases(found)]
    metrics["warnings"] = [*doubts, *metrics["warnings"]]
    metrics["source"] = source
    return metrics


def evaluate_predictions(
    predictions: Mapping[str, ClassPrediction],
    labels: ClassLabels,
    class_names: Sequence[str] | None,
    *,
    resamples: int,
    seed: int,
    names_source: str = "class_names",
) -> ClassificationMetrics:
    """What :func:`evaluate_classification` returns, from predictions in memory and without ``source``."""
    cases = classified_cases(predictions, labels, class_names, names_source)
    metrics: dict[str, Any] = {**class_metrics(cases.truth, cases.predicted, cases.probabilities, cases.names)}
    if cases.without_probabilities:
        metrics["auc_undefined_reason"] = f"these cases have no probabilities: {listing(cases.without_probabilities)}"
    metrics |= _intervals(cases, resamples, seed)
    metrics["warnings"] = [
        *_contradictions({case: predictions[case] for case in cases.cases}),
        *_warnings(cases.truth, cases.names, metrics["confidence_intervals"]),
    ]
    metrics["excluded_unknown_label"] = [case for case in predictions if labels.by_case[case] == UNKNOWN]
    metrics["labels_without_prediction"] = sorted(set(labels.by_case) - set(predictions))
    metrics["n_labels_without_prediction"] = len(metrics["labels_without_prediction"])
    return cast(ClassificationMetrics, metrics)


def _intervals(cases: ClassifiedCases, resamples: int, seed: int) -> dict[str, Any]:
    if not resamples:
        return {"confidence_intervals": None, "confidence_intervals_per_class": None}
    counts = draw_counts(cases.truth, resamples, seed)
    values = resampled_metrics(counts, cases.truth, cases.predicted, cases.probabilities, len(cases.names))
    return {
        "confidence_intervals": metric_intervals(values),
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


def _warnings(truth: np.ndarray, names: Sequence[str], intervals: Mapping[str, Interval] | None) -> list[str]:
    warnings = []
    for name, count in zip(names, np.bincount(truth, minlength=len(names)), strict=True):
        if count == 0:
            warnings.append(f"{name}: no case of this class, its metrics are undefined")
        elif count == 1 and intervals:
            warnings.append(f"{name}: a single case, which never varies; the intervals are too narrow")
    half_widths = {name: (high - low) / 2 for name, (low, high) in (intervals or {}).items() if name in WATCHED}
    wide = max(half_widths, key=lambda name: half_widths[name], default=None)
    if wide is not None and half_widths[wide] > WIDE_INTERVAL:
        warnings.append(
            f"{len(truth)} cases are few: {wide.replace('_', ' ')} is known only to within "
            f"{half_widths[wide]:.2f}; a smaller difference between two models says little"
        )
    return warnings
