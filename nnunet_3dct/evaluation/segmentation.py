"""Segmentation metrics of a prediction folder: overlap, surfaces, volumes and lesions of every structure.

Dice and IoU are those of nnU-Net's ``compute_metrics``. What has no value is None, never 0 by convention:

========================  ==================  ================  ==============  =======================
reference, prediction     Dice, IoU, NSD      HD95              volume error    volume error in percent
========================  ==================  ================  ==============  =======================
both empty                None                None              0               None
only the prediction       0                   None (infinite)   its volume      None
only the reference        0                   None (infinite)   minus its own   -100
========================  ==================  ================  ==============  =======================

Means leave None out; the number of cases they stand on is given beside them, and the cases of each row are listed.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.evaluation.bootstrap import mean_interval
from nnunet_3dct.evaluation.lesions import detect_lesions
from nnunet_3dct.evaluation.surface import surface_metrics
from nnunet_3dct.formats.label_volumes import Pair, find_reader, load_label_scheme, match_files, read_pair

WHOLE_ORGAN = "whole_organ"
AVERAGED = ("Dice", "IoU", "NSD", "HD95", "volume_error_ml", "volume_error_percent")
COUNTED = ("lesions_reference", "lesions_found", "lesions_missed", "lesions_predicted", "lesions_false")
VOLUMES = ("volume_reference_ml", "volume_prediction_ml")
INTERVAL_RESAMPLES, INTERVAL_SEED = 2000, 0


def evaluate_segmentation(
    references: Path,
    predictions: Path,
    dataset_json: Path,
    *,
    tolerance: float = 2.0,
    lesion_overlap: float = 0.1,
    num_processes: int = 1,
    chill: bool = False,
) -> dict[str, Any]:
    """Compare every prediction with its reference.

    Args:
        references: folder of reference label volumes.
        predictions: folder of predicted label volumes of the same names.
        dataset_json: the dataset's ``dataset.json``; each of its labels or regions is a structure, and all foreground
            labels together are ``whole_organ``.
        tolerance: of the surface Dice, in mm.
        lesion_overlap: share of a lesion that must be covered for it to count as found.
        num_processes: how many cases are compared at the same time (threads).
        chill: accept references without a prediction.

    Returns:
        The content of ``segmentation_metrics.json``: ``structures`` (name -> labels, mean, median, sd, n and 95 %
        interval of the mean of each metric, lesions over all cases, cases that lack a value), ``metric_per_case`` and
        the settings.

    Raises:
        EvaluationError: files are missing, a setting is out of range, or a prediction does not lie on the grid of its
            reference.
        ImageError: a file is unreadable, truncated, or holds values that are no labels of the dataset.
    """
    if num_processes < 1:
        raise EvaluationError(f"-np: expected at least 1, found {num_processes}.")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise EvaluationError(f"--tolerance: expected mm, at least 0, found {tolerance}.")
    if not 0 < lesion_overlap <= 1:
        raise EvaluationError(f"--lesion_overlap: expected a share above 0 and at most 1, found {lesion_overlap}.")
    references, predictions = Path(references), Path(predictions)
    scheme = load_label_scheme(dataset_json)
    names, missing = match_files(references, predictions, scheme.file_ending, chill=chill)
    reader = find_reader(scheme, references / names[0])
    structures = structure_labels(scheme.content["labels"], scheme.ignore)

    def compare(name: str) -> tuple[dict[str, Any], list[str]]:
        pair = read_pair(references / name, predictions / name, reader, scheme)
        return {"case": name.removesuffix(scheme.file_ending), "metrics": _case(pair)}, pair.rounded

    def _case(pair: Pair) -> dict[str, Any]:
        return case_metrics(pair, structures, tolerance=tolerance, lesion_overlap=lesion_overlap)

    with ThreadPoolExecutor(min(num_processes, len(names), os.cpu_count() or 1)) as pool:
        compared = list(pool.map(compare, names))
    cases = [case for case, _ in compared]
    return {
        "n_cases": len(cases),
        "settings": {"tolerance_mm": tolerance, "lesion_overlap": lesion_overlap},
        "structures": {
            name: {"labels": labels, **summarize([(case["case"], case["metrics"][name]) for case in cases])}
            for name, labels in structures.items()
        },
        "missing_predictions": missing,
        "rounded_to_whole_labels": [path for _, rounded in compared for path in rounded],
        "metric_per_case": cases,
    }


def structure_labels(labels: Mapping[str, Any], ignore: int | None) -> dict[str, tuple[int, ...]]:
    """Return the voxel labels of each structure of ``dataset.json``, and of the whole organ.

    Args:
        labels: ``labels`` of ``dataset.json``: name -> label, or list of labels of a region.
        ignore: the ignore label, which is no structure.
    """
    found = {}
    for name, value in labels.items():
        members = tuple(int(v) for v in (value if isinstance(value, list | tuple) else [value]))
        if members not in ((0,), (ignore,)):
            found[name] = members
    return {**found, WHOLE_ORGAN: tuple(sorted({label for members in found.values() for label in members}))}


def case_metrics(
    pair: Pair, structures: Mapping[str, tuple[int, ...]], *, tolerance: float, lesion_overlap: float
) -> dict[str, dict[str, float | int | None]]:
    """Compute all metrics of one case, by structure; see the module for what is None."""
    spacing = pair.reference.properties["spacing"]
    voxel = float(np.prod(spacing)) / 1000
    overlap = pair.compute_metrics(list(structures.values()))["metrics"]
    found = {}
    for name, labels in structures.items():
        reference, prediction = (np.isin(v.labels[0], labels) for v in (pair.reference, pair.prediction))
        if pair.ignore is not None:
            prediction &= pair.reference.labels[0] != pair.ignore
        found[name] = _structure(reference, prediction, spacing, voxel, overlap[labels], tolerance, lesion_overlap)
    return found


def _structure(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    voxel: float,
    overlap: Mapping[str, float],
    tolerance: float,
    lesion_overlap: float,
) -> dict[str, float | int | None]:
    volumes = [np.count_nonzero(mask) * voxel for mask in (reference, prediction)]
    surface: tuple[float | None, float | None] = (None, None)
    if all(volumes):
        surface = surface_metrics(reference, prediction, spacing, tolerance)
    elif any(volumes):
        surface = (0.0, None)
    lesions = detect_lesions(reference, prediction, lesion_overlap)
    return {
        **{key: None if np.isnan(overlap[key]) else float(overlap[key]) for key in ("Dice", "IoU")},
        "NSD": surface[0],
        "HD95": surface[1],
        "volume_reference_ml": volumes[0],
        "volume_prediction_ml": volumes[1],
        "volume_error_ml": volumes[1] - volumes[0],
        "volume_error_percent": 100 * (volumes[1] / volumes[0] - 1) if volumes[0] else None,
        "lesions_reference": lesions.reference,
        "lesions_found": lesions.found,
        "lesions_missed": lesions.missed,
        "lesions_predicted": lesions.predicted,
        "lesions_false": lesions.false,
    }


def summarize(cases: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Summarise one structure over the cases, given as ``(case, metrics)``."""
    summary: dict[str, Any] = {}
    for key in AVERAGED:
        values = np.array([metrics[key] for _, metrics in cases if metrics[key] is not None], dtype=float)
        summary[key] = _statistics(values)
    counts = {key: sum(metrics[key] for _, metrics in cases) for key in COUNTED}
    counts["sensitivity"] = _share(counts["lesions_found"], counts["lesions_reference"])
    counts["precision"] = _share(counts["lesions_predicted"] - counts["lesions_false"], counts["lesions_predicted"])
    counts["false_per_case"] = _share(counts["lesions_false"], len(cases))
    empty = {True: "empty_", False: ""}
    lists: dict[str, list[str]] = {"empty_in_both": [], "empty_reference": [], "empty_prediction": []}
    for case, metrics in cases:
        state = [empty[metrics[key] == 0] for key in VOLUMES]
        if state == ["empty_", "empty_"]:
            lists["empty_in_both"].append(case)
        elif state[0]:
            lists["empty_reference"].append(case)
        elif state[1]:
            lists["empty_prediction"].append(case)
    return {**summary, "lesions": counts, **lists}


def _statistics(values: np.ndarray) -> dict[str, Any]:
    """Mean with the percentile interval of a bootstrap of the cases, median, standard deviation, number of values."""
    if not len(values):
        return {"mean": None, "mean_interval": None, "median": None, "sd": None, "n": 0}
    return {
        "mean": values.mean(),
        "mean_interval": mean_interval(values, INTERVAL_RESAMPLES, INTERVAL_SEED),
        "median": np.median(values),
        "sd": values.std(ddof=1) if len(values) > 1 else None,
        "n": len(values),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def to_csv(result: Mapping[str, Any]) -> str:
    """Lay out the metrics of every case and structure as CSV, a field without a value empty."""
    buffer = io.StringIO()
    names = [*AVERAGED[:4], *VOLUMES, *AVERAGED[4:], *COUNTED]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["case", "structure", *names])
    for case in result["metric_per_case"]:
        for structure, metrics in case["metrics"].items():
            writer.writerow([case["case"], structure, *(_field(metrics[name]) for name in names)])
    return buffer.getvalue()


def _field(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
