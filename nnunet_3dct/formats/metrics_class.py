"""``classification_metrics.json``: name and content.

Values without a meaning are None (``null``). Intervals are ``(low, high)`` and cover 95 %.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

CLASSIFICATION_METRICS = "classification_metrics.json"

Interval = tuple[float, float]
ClassMetricName = Literal[
    "accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "auc_macro", "average_precision_macro",
    "cohen_kappa", "matthews_corrcoef", "brier_score", "expected_calibration_error",
]  # fmt: skip
PerClassName = Literal[
    "f1_per_class", "precision_per_class", "recall_per_class", "auc_per_class", "average_precision_per_class"
]


class ReliabilityBin(TypedDict):
    """Cases whose highest probability lies in ``low`` to ``high``: their mean probability, and the share correct."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


class CalibrationMetrics(TypedDict):
    """Brier score, expected calibration error, number of bins, and the points of the reliability diagram."""

    brier_score: float
    expected_calibration_error: float
    bins: int
    reliability: list[ReliabilityBin]


class Bootstrap(TypedDict):
    """How the intervals were made."""

    method: str
    level: float
    resamples: int
    seed: int


class MetricDifference(TypedDict):
    """A class metric of two folders, ``difference`` first minus second."""

    first: float
    second: float
    difference: float
    interval: Interval | None


class McNemarTest(TypedDict):
    """Cases that only one of two predictions has right, and the exact p-value for equal accuracy."""

    only_first_correct: int
    only_second_correct: int
    p_value: float


class ClassComparison(TypedDict):
    """Two folders of class predictions on the same cases."""

    first: str
    second: str
    n_samples: int
    metrics: dict[ClassMetricName, MetricDifference]
    mcnemar: McNemarTest


class ClassMetrics(TypedDict):
    """Point metrics of ``classification_metrics.json``; lists have an entry for each class."""

    accuracy: float
    balanced_accuracy: float
    auc_macro: float | None
    auc_weighted: float | None
    auc_per_class: list[float | None] | None
    average_precision_macro: float | None
    average_precision_weighted: float | None
    average_precision_per_class: list[float | None] | None
    auc_undefined_reason: str | None
    cohen_kappa: float | None
    matthews_corrcoef: float | None
    class_names: list[str]
    confusion_matrix: list[list[int]]
    confusion_matrix_by_name: dict[str, dict[str, int]]
    classes_absent_from_truth: list[str]
    classes_never_predicted: list[str]
    n_samples: int
    classification_report: dict[str, Any]  # scikit-learn's
    f1_macro: float
    f1_micro: float
    f1_weighted: float
    f1_per_class: list[float | None]
    precision_macro: float
    precision_micro: float
    precision_weighted: float
    precision_per_class: list[float | None]
    recall_macro: float
    recall_micro: float
    recall_weighted: float
    recall_per_class: list[float | None]
    calibration: CalibrationMetrics | None
    brier_score: float | None
    expected_calibration_error: float | None


class ClassificationMetrics(ClassMetrics):
    """Content of ``classification_metrics.json``."""

    confidence_intervals: dict[str, Interval] | None
    confidence_intervals_per_class: dict[str, list[Interval | None]] | None
    bootstrap: NotRequired[Bootstrap]
    warnings: list[str]
    excluded_unknown_label: list[str]
    labels_without_prediction: list[str]
    n_labels_without_prediction: int
    source: NotRequired[str]
    comparison: NotRequired[ClassComparison]
