"""Tables of the metrics: which there are, under which name, with how many decimals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS, METRICS_OF_A_CLASS
from nnunet_3dct.formats.metrics_class import ClassificationMetrics
from nnunet_3dct.formats.metrics_segmentation import AveragedMetric, Statistics
from nnunet_3dct.report.cohort import Cohort
from nnunet_3dct.report.wording import NONE, interval, number, percent, title

LesionNumber = Literal[
    "lesions_reference",
    "lesions_found",
    "lesions_missed",
    "lesions_false",
    "sensitivity",
    "precision",
    "false_per_case",
]
# key, name, decimals; {tolerance} is that of the surface Dice
SEGMENTATION: tuple[tuple[AveragedMetric, str, int], ...] = (
    ("Dice", "Dice", 3),
    ("IoU", "IoU", 3),
    ("NSD", "Surface Dice at {tolerance:g} mm (NSD)", 3),
    ("HD95", "95 % Hausdorff distance [mm]", 1),
    ("volume_error_ml", "Volume error [ml]", 2),
    ("volume_error_percent", "Volume error [%]", 1),
)
LESIONS: tuple[tuple[LesionNumber, str, int], ...] = (
    ("lesions_reference", "In the reference", 0),
    ("lesions_found", "Found", 0),
    ("lesions_missed", "Missed", 0),
    ("lesions_false", "Falsely predicted", 0),
    ("sensitivity", "Sensitivity", 3),
    ("precision", "Precision", 3),
    ("false_per_case", "False per case", 2),
)


Cell = str | tuple[str, ...]  # of several lines


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its heading."""

    caption: str
    header: list[str]
    rows: list[list[Cell]]


def segmentation_tables(cohort: Cohort) -> list[Table]:
    """Metrics and connected parts of every structure; empty without references."""
    result = cohort.segmentation
    if result is None:
        return []
    summaries = [(name, result["structures"][name]) for name in cohort.structures]
    tolerance, overlap = result["settings"]["tolerance_mm"], percent(result["settings"]["lesion_overlap"])
    metrics: list[list[Cell]] = [
        [title(name), *(_statistics(summary[key], digits, result["n_cases"]) for key, _, digits in SEGMENTATION)]
        for name, summary in summaries
    ]
    parts: list[list[Cell]] = [
        [title(name), *(number(summary["lesions"][key], digits) for key, _, digits in LESIONS)]
        for name, summary in summaries
    ]
    return [
        Table(
            "Overlap, surfaces and volumes: mean over the cases, its 95 % bootstrap interval, median",
            ["Structure", *(label.format(tolerance=tolerance) for _, label, _ in SEGMENTATION)],
            metrics,
        ),
        Table(
            f"Connected parts over all cases; a part is found if {overlap} of it is covered",
            ["Structure", *(label for _, label, _ in LESIONS)],
            parts,
        ),
    ]


def _statistics(found: Statistics, digits: int, cases: int) -> Cell:
    if found["mean"] is None:
        return NONE
    lines = [number(found["mean"], digits)]
    if found["mean_interval"]:
        lines.append(interval(found["mean_interval"], digits))
    lines.append(f"median {number(found['median'], digits)}")
    if found["n"] < cases:
        lines.append(f"{found['n']} of {cases} cases")
    return tuple(lines)


def class_tables(metrics: ClassificationMetrics) -> list[Table]:
    """Metrics over all classes, and of each."""
    intervals = metrics["confidence_intervals"] or {}
    overall: list[list[Cell]] = [
        [label, number(metrics[key]), interval(intervals.get(key))]
        for key, label in CLASS_METRICS.items()
        if metrics[key] is not None
    ]
    by_class = metrics["confidence_intervals_per_class"] or {}
    columns = [(key, label, values) for key, label in METRICS_OF_A_CLASS.items() if (values := metrics[key])]
    rows: list[list[Cell]] = [
        [
            name,
            *(_with_interval(values[k], by_class[key][k] if key in by_class else None) for key, _, values in columns),
            str(sum(metrics["confusion_matrix"][k])),
        ]
        for k, name in enumerate(metrics["class_names"])
    ]
    return [
        Table("Class metrics with 95 % bootstrap intervals", ["Metric", "Value", "95 % interval"], overall),
        Table(
            "Each class against the rest, 95 % intervals below" if by_class else "Each class against the rest",
            ["Class", *(label for _, label, _ in columns), "Cases"],
            rows,
        ),
    ]


def _with_interval(value: float | None, bounds: Sequence[float] | None) -> Cell:
    return number(value) if bounds is None else (number(value), interval(bounds, 2))


@dataclass(frozen=True)
class ConfusionCell:
    """Cases of a true class (row) that were predicted as another (column), and their share of the row."""

    count: int
    share: str
    correct: bool
    shade: float


def confusion_cells(metrics: ClassificationMetrics) -> list[list[ConfusionCell]]:
    """Return the confusion matrix, rows truth, with shares of each row."""
    rows = []
    for i, counts in enumerate(metrics["confusion_matrix"]):
        total = int(sum(counts))
        shares = [int(count) / total if total else None for count in counts]
        rows.append(
            [
                ConfusionCell(int(count), NONE if share is None else percent(share), i == k, share or 0.0)
                for k, (count, share) in enumerate(zip(counts, shares, strict=True))
            ]
        )
    return rows
