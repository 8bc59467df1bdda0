"""Segmentation metrics of one case; see :mod:`nnunet_3dct.evaluation.segmentation` for what is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_3dct.evaluation.lesions import detect_lesions
from nnunet_3dct.evaluation.surface import surface_metrics
from nnunet_3dct.formats.label_volumes import Pair
from nnunet_3dct.formats.metrics_segmentation import WHOLE_ORGAN, SegmentationSettings, StructureMetrics


def structure_labels(labels: Mapping[str, Any], ignore: int | None) -> dict[str, tuple[int, ...]]:
    """Return the voxel labels of each structure of ``dataset.json``, and of the whole organ.

    Args:
        labels: ``labels`` of ``dataset.json``: name -> label, or list of labels of a region.
        ignore: the ignore label, which is no structure.
    """
    structures = {}
    for name, value in labels.items():
        members = tuple(int(v) for v in (value if isinstance(value, list | tuple) else [value]))
        if members not in ((0,), (ignore,)):
            structures[name] = members
    everything = sorted({label for members in structures.values() for label in members})
    return {**structures, WHOLE_ORGAN: tuple(everything)}


def case_metrics(
    pair: Pair, structures: Mapping[str, tuple[int, ...]], settings: SegmentationSettings
) -> dict[str, StructureMetrics]:
    """Compute all metrics of one case, by structure."""
    spacing = pair.reference.properties["spacing"]
    overlap = pair.compute_metrics(list(structures.values()))["metrics"]
    metrics = {}
    for name, labels in structures.items():
        reference, prediction = (np.isin(v.labels[0], labels) for v in (pair.reference, pair.prediction))
        if pair.ignore is not None:
            prediction &= pair.reference.labels[0] != pair.ignore
        metrics[name] = _structure(reference, prediction, spacing, overlap[labels], settings)
    return metrics


def _structure(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    overlap: Mapping[str, float],
    settings: SegmentationSettings,
) -> StructureMetrics:
    voxel = float(np.prod(spacing)) / 1000
    expected, predicted = (np.count_nonzero(mask) * voxel for mask in (reference, prediction))
    surface: tuple[float | None, float | None] = (None, None)
    if expected and predicted:
        surface = surface_metrics(reference, prediction, spacing, settings["tolerance_mm"])
    elif expected or predicted:
        surface = (0.0, None)
    lesions = detect_lesions(reference, prediction, settings["lesion_overlap"])
    return {
        "Dice": _or_none(overlap["Dice"]),
        "IoU": _or_none(overlap["IoU"]),
        "NSD": surface[0],
        "HD95": surface[1],
        "volume_reference_ml": expected,
        "volume_prediction_ml": predicted,
        "volume_error_ml": predicted - expected,
        "volume_error_percent": 100 * (predicted / expected - 1) if expected else None,
        "lesions_reference": lesions.reference,
        "lesions_found": lesions.found,
        "lesions_missed": lesions.missed,
        "lesions_predicted": lesions.predicted,
        "lesions_false": lesions.false,
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
