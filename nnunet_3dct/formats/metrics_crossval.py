"""``crossval_metrics.json``: name and content."""

from __future__ import annotations

from typing_extensions import TypedDict

from nnunet_3dct.formats.metrics_class import ClassificationMetrics
from nnunet_3dct.formats.metrics_segmentation import (
    AveragedMetric,
    CaseSegmentation,
    SegmentationSettings,
    StructureSummary,
)

CROSSVAL_METRICS = "crossval_metrics.json"


class Spread(TypedDict):
    """Mean and standard deviation (n - 1) of the values of ``n`` folds."""

    mean: float | None
    sd: float | None
    n: int


class CrossvalSegmentation(TypedDict):
    """Segmentation over all folds; ``per_fold`` and ``spread``: means of the folds."""

    settings: SegmentationSettings
    pooled: dict[str, StructureSummary]
    per_fold: dict[str, dict[str, dict[AveragedMetric, float | None]]]
    spread: dict[str, dict[AveragedMetric, Spread]]
    metric_per_case: list[CaseSegmentation]


class CrossvalClassification(TypedDict):
    """Class over all folds; ``pooled`` is None if no case has a class."""

    pooled: ClassificationMetrics | None
    per_fold: dict[str, dict[str, float | None]]
    spread: dict[str, Spread]


class CrossvalMetrics(TypedDict):
    """Content of ``crossval_metrics.json``."""

    model: str
    warnings: list[str]
    folds: dict[str, list[str]]
    segmentation: CrossvalSegmentation
    classification: CrossvalClassification
