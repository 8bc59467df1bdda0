"""``segmentation_metrics.json`` and ``whole_pancreas_summary.json``: names and content.

Values without a meaning are None (``null``). Intervals are ``(low, high)`` and cover 95 %.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict

from nnunet_3dct.formats.metrics_class import Interval

SEGMENTATION_METRICS = "segmentation_metrics.json"
WHOLE_ORGAN_SUMMARY = "whole_pancreas_summary.json"
WHOLE_ORGAN = "whole_organ"  # structure made of all foreground labels, in segmentation_metrics.json
WHOLE_PANCREAS = "whole_pancreas"  # the same in whole_pancreas_summary.json

AveragedMetric = Literal["Dice", "IoU", "NSD", "HD95", "volume_error_ml", "volume_error_percent"]
LesionCount = Literal["lesions_reference", "lesions_found", "lesions_missed", "lesions_predicted", "lesions_false"]
Volume = Literal["volume_reference_ml", "volume_prediction_ml"]
EmptyList = Literal["empty_in_both", "empty_reference", "empty_prediction"]
AVERAGED: tuple[AveragedMetric, ...] = ("Dice", "IoU", "NSD", "HD95", "volume_error_ml", "volume_error_percent")
COUNTED: tuple[LesionCount, ...] = (
    "lesions_reference", "lesions_found", "lesions_missed", "lesions_predicted", "lesions_false",
)  # fmt: skip
VOLUMES: tuple[Volume, ...] = ("volume_reference_ml", "volume_prediction_ml")


class StructureMetrics(TypedDict):
    """One structure in one case: overlap 0 to 1, HD95 in mm, volumes in ml, numbers of connected parts."""

    Dice: float | None
    IoU: float | None
    NSD: float | None
    HD95: float | None
    volume_reference_ml: float
    volume_prediction_ml: float
    volume_error_ml: float
    volume_error_percent: float | None
    lesions_reference: int
    lesions_found: int
    lesions_missed: int
    lesions_predicted: int
    lesions_false: int


class Statistics(TypedDict):
    """A metric over the ``n`` cases that have a value."""

    mean: float | None
    mean_interval: Interval | None
    median: float | None
    sd: float | None
    n: int


class LesionCounts(TypedDict):
    """Connected parts of a structure over all cases."""

    lesions_reference: int
    lesions_found: int
    lesions_missed: int
    lesions_predicted: int
    lesions_false: int
    sensitivity: float | None
    precision: float | None
    false_per_case: float | None


class StructureSummary(TypedDict):
    """One structure over all cases; the lists name cases in which reference or prediction lack it."""

    labels: tuple[int, ...]
    Dice: Statistics
    IoU: Statistics
    NSD: Statistics
    HD95: Statistics
    volume_error_ml: Statistics
    volume_error_percent: Statistics
    lesions: LesionCounts
    empty_in_both: list[str]
    empty_reference: list[str]
    empty_prediction: list[str]


class CaseSegmentation(TypedDict):
    """Metrics of one case by structure; ``fold`` in ``crossval_metrics.json`` alone."""

    case: str
    metrics: dict[str, StructureMetrics]
    fold: NotRequired[int]


class SegmentationSettings(TypedDict):
    """Tolerance of the surface Dice, and the share of a lesion that must be covered for it to count as found."""

    tolerance_mm: float
    lesion_overlap: float


class DiceDifference(TypedDict):
    """Paired Dice of two folders, ``difference`` first minus second; p-value None where no case differs."""

    first: float
    second: float
    difference: float
    interval: Interval | None
    wilcoxon_p_value: float | None


class StructureComparison(TypedDict):
    """``n`` compared cases; ``without_dice`` lists those left out because one of the two has no Dice."""

    Dice: DiceDifference | None
    n: int
    without_dice: list[str]


class SegmentationComparison(TypedDict):
    """Two folders of segmentations on the same cases."""

    first: str
    second: str
    n_cases: int
    structures: dict[str, StructureComparison]


class SegmentationMetrics(TypedDict):
    """Content of ``segmentation_metrics.json``."""

    n_cases: int
    settings: SegmentationSettings
    structures: dict[str, StructureSummary]
    missing_predictions: list[str]
    rounded_to_whole_labels: list[str]
    metric_per_case: list[CaseSegmentation]
    comparison: NotRequired[SegmentationComparison]


class OverlapMetrics(TypedDict):
    """nnU-Net's metrics of one mask; counts are voxels (means of them in the summary)."""

    Dice: float
    IoU: float
    FP: float
    TP: float
    FN: float
    TN: float
    n_pred: float
    n_ref: float


class CaseOverlap(TypedDict):
    """Overlap of one case, as nnU-Net writes it."""

    reference_file: str
    prediction_file: str
    metrics: dict[str, OverlapMetrics]


class ForegroundLabels(TypedDict):
    """Labels that make up the organ, and the one whose voxels count nowhere."""

    foreground: tuple[int, ...]
    ignore: int | None


class EmptyCases(TypedDict):
    """Cases whose reference and prediction are both empty."""

    count: int
    cases: list[str]
    note: str


class WholeOrganSummary(TypedDict):
    """Content of ``whole_pancreas_summary.json``."""

    foreground_mean: OverlapMetrics
    mean: dict[str, OverlapMetrics]
    labels: ForegroundLabels
    n_cases: int
    empty_in_both: EmptyCases
    missing_predictions: list[str]
    rounded_to_whole_labels: list[str]
    metric_per_case: list[CaseOverlap]
