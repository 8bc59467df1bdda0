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
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.evaluation.case_segmentation import case_metrics, structure_labels
from nnunet_3dct.evaluation.segmentation_summary import summarize
from nnunet_3dct.evaluation.surface import quiet_monai
from nnunet_3dct.formats.label_volumes import find_reader, load_label_scheme, match_files, read_pair
from nnunet_3dct.formats.metrics_segmentation import (
    AVERAGED,
    COUNTED,
    VOLUMES,
    CaseSegmentation,
    SegmentationMetrics,
    SegmentationSettings,
)


def evaluate_segmentation(
    references: Path | str,
    predictions: Path | str,
    dataset_json: Path | str,
    *,
    tolerance: float = 2.0,
    lesion_overlap: float = 0.1,
    num_processes: int = 1,
    chill: bool = False,
    cases: Collection[str] | None = None,
) -> SegmentationMetrics:
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
        cases: predictions to compare, the other files are left alone; None for all.

    Returns:
        The content of ``segmentation_metrics.json``: ``structures`` (name -> labels, mean, median, sd, n and 95 %
        interval of the mean of each metric, lesions over all cases, cases that lack a value), ``metric_per_case`` and
        the settings.

    Raises:
        SettingsError: a setting is out of range.
        EvaluationError: files are missing, or a prediction does not lie on the grid of its reference.
        ImageError: a file is unreadable, truncated, or holds values that are no labels of the dataset.

    Examples:
        >>> import nnunet_3dct
        >>> metrics = nnunet_3dct.evaluate_segmentation(labels, predictions, dataset_json, tolerance=2.0)
        >>> sorted(metrics["structures"])
        ['lesion', 'organ', 'whole_organ']
        >>> metrics["structures"]["organ"]["Dice"]["n"]
        6
        >>> 0 <= metrics["structures"]["organ"]["Dice"]["mean"] <= 1
        True
    """
    settings = check_settings(tolerance, lesion_overlap)
    check_num_processes(num_processes)
    references, predictions = Path(references), Path(predictions)
    scheme = load_label_scheme(Path(dataset_json))
    names, missing = match_files(references, predictions, scheme.file_ending, chill=chill or cases is not None)
    if cases is not None:
        names = [name for name in names if name.removesuffix(scheme.file_ending) in cases]
    reader = find_reader(scheme, references / names[0])
    structures = structure_labels(scheme.content["labels"], scheme.ignore)

    def compare(name: str) -> tuple[CaseSegmentation, list[str]]:
        pair = read_pair(references / name, predictions / name, reader, scheme)
        metrics = case_metrics(pair, structures, settings)
        return {"case": name.removesuffix(scheme.file_ending), "metrics": metrics}, pair.rounded

    workers = min(num_processes, len(names), os.cpu_count() or 1)
    with quiet_monai(), ThreadPoolExecutor(workers) as pool:
        compared = list(pool.map(compare, names))
    return summarize(
        [case for case, _ in compared],
        structures,
        settings,
        missing=missing,
        rounded=[path for _, rounded in compared for path in rounded],
    )


def check_settings(tolerance: float, lesion_overlap: float) -> SegmentationSettings:
    """Return the settings as the file holds them.

    Raises:
        SettingsError: one of them is out of range.
    """
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise SettingsError(f"tolerance: expected mm, at least 0, found {tolerance}.")
    if not 0 < lesion_overlap <= 1:
        raise SettingsError(f"lesion_overlap: expected a share above 0 and at most 1, found {lesion_overlap}.")
    return {"tolerance_mm": tolerance, "lesion_overlap": lesion_overlap}


def check_num_processes(num_processes: int) -> None:
    """Raise SettingsError below 1."""
    if num_processes < 1:
        raise SettingsError(f"num_processes: expected at least 1, found {num_processes}.")


def to_csv(result: SegmentationMetrics) -> str:
    """Lay out the metrics of every case and structure as CSV, a field without a value empty."""
    buffer = io.StringIO()
    names: Sequence[str] = [*AVERAGED[:4], *VOLUMES, *AVERAGED[4:], *COUNTED]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["case", "structure", *names])
    for case in result["metric_per_case"]:
        for structure, metrics in case["metrics"].items():
            values: Mapping[str, Any] = metrics
            writer.writerow([case["case"], structure, *(_field(values[name]) for name in names)])
    return buffer.getvalue()


def _field(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
