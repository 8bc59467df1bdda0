"""Segmentation metrics of single cases put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from nnunet_3dct.evaluation.bootstrap import mean_interval
from nnunet_3dct.formats.metrics_segmentation import (
    AVERAGED,
    COUNTED,
    CaseSegmentation,
    LesionCounts,
    SegmentationMetrics,
    SegmentationSettings,
    Statistics,
    StructureMetrics,
    StructureSummary,
)

INTERVAL_RESAMPLES, INTERVAL_SEED = 2000, 0


def summarize(
    cases: list[CaseSegmentation],
    structures: Mapping[str, tuple[int, ...]],
    settings: SegmentationSettings,
    *,
    missing: Sequence[str] = (),
    rounded: Sequence[str] = (),
) -> SegmentationMetrics:
    """Put the metrics of the cases together as ``segmentation_metrics.json`` holds them.

    Args:
        cases: metrics of every case.
        structures: name -> voxel labels.
        settings: that the metrics were computed with.
        missing: references without a prediction.
        rounded: files whose values had to be rounded to whole labels.
    """
    return {
        "n_cases": len(cases),
        "settings": settings,
        "structures": {name: summarize_structure(cases, name, labels) for name, labels in structures.items()},
        "missing_predictions": list(missing),
        "rounded_to_whole_labels": list(rounded),
        "metric_per_case": cases,
    }


def summarize_structure(cases: Sequence[CaseSegmentation], name: str, labels: tuple[int, ...]) -> StructureSummary:
    """Summarise the structure ``name``, made of the voxel ``labels``, over the cases."""
    by_case = {case["case"]: case["metrics"][name] for case in cases}
    statistics: dict[str, Statistics] = {
        key: _statistics([metrics[key] for metrics in by_case.values()]) for key in AVERAGED
    }
    empty = {case: (m["volume_reference_ml"] == 0, m["volume_prediction_ml"] == 0) for case, m in by_case.items()}
    summary = {
        "labels": labels,
        **statistics,
        "lesions": _lesions(list(by_case.values())),
        "empty_in_both": [case for case, state in empty.items() if state == (True, True)],
        "empty_reference": [case for case, state in empty.items() if state == (True, False)],
        "empty_prediction": [case for case, state in empty.items() if state == (False, True)],
    }
    return cast(StructureSummary, summary)


def _lesions(cases: Sequence[StructureMetrics]) -> LesionCounts:
    counts = {key: sum(metrics[key] for metrics in cases) for key in COUNTED}
    true = counts["lesions_predicted"] - counts["lesions_false"]
    rates = {
        "sensitivity": _share(counts["lesions_found"], counts["lesions_reference"]),
        "precision": _share(true, counts["lesions_predicted"]),
        "false_per_case": _share(counts["lesions_false"], len(cases)),
    }
    return cast(LesionCounts, {**counts, **rates})


def _statistics(given: Sequence[float | None]) -> Statistics:
    """Mean with the percentile interval of a bootstrap of the cases, median, standard deviation, number of values."""
    values = np.array([value for value in given if value is not None], dtype=float)
    if not len(values):
        return {"mean": None, "mean_interval": None, "median": None, "sd": None, "n": 0}
    return {
        "mean": float(values.mean()),
        "mean_interval": mean_interval(values, INTERVAL_RESAMPLES, INTERVAL_SEED),
        "median": float(np.median(values)),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "n": len(values),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
