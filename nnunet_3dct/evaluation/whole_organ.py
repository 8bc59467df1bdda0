"""Overlap of prediction and reference when all foreground labels are taken as one organ.

The numbers come from nnU-Net's own ``compute_metrics`` with a single region made of every foreground label.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from nnunet_3dct.evaluation.segmentation import check_num_processes
from nnunet_3dct.formats.label_volumes import LabelScheme, find_reader, load_label_scheme, match_files, read_pair
from nnunet_3dct.formats.metrics_segmentation import WHOLE_PANCREAS, CaseOverlap, OverlapMetrics, WholeOrganSummary

if TYPE_CHECKING:
    from nnunet_3dct.upstream import BaseReaderWriter


def evaluate_whole_organ(
    references: Path | str,
    predictions: Path | str,
    dataset_json: Path | str,
    *,
    num_processes: int = 1,
    chill: bool = False,
) -> WholeOrganSummary:
    """Compute Dice, IoU and voxel counts of the whole organ for every predicted case.

    A case whose reference and prediction are both empty has no Dice and no IoU: both are NaN (null in the
    JSON file), the means leave them out, and ``empty_in_both`` lists such cases. A case in which only one of
    the two is empty has Dice 0 and counts.

    Args:
        references: folder of reference label volumes.
        predictions: folder of predicted label volumes of the same names.
        dataset_json: the dataset's ``dataset.json``; says labels, ignore label, file ending and reader.
        num_processes: how many cases are compared at the same time (threads).
        chill: accept references without a prediction.

    Returns:
        The content of ``whole_pancreas_summary.json``.

    Raises:
        SettingsError: ``num_processes`` is below 1.
        EvaluationError: files are missing, or a prediction does not lie on the grid of its reference.
        ImageError: a file is unreadable, truncated, or holds values that are no labels of the dataset.
    """
    check_num_processes(num_processes)
    references, predictions = Path(references), Path(predictions)
    scheme = load_label_scheme(Path(dataset_json))
    names, missing = match_files(references, predictions, scheme.file_ending, chill=chill)
    reader = find_reader(scheme, references / names[0])

    def compare(name: str) -> tuple[CaseOverlap, list[str]]:
        return compare_case(references / name, predictions / name, reader, scheme)

    workers = min(num_processes, len(names), os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        compared = list(pool.map(compare, names))
    cases = [case for case, _ in compared]
    mean = mean_metrics([case["metrics"][WHOLE_PANCREAS] for case in cases])
    empty = [n for n, case in zip(names, cases, strict=True) if np.isnan(case["metrics"][WHOLE_PANCREAS]["Dice"])]
    return {
        "foreground_mean": mean,
        "mean": {WHOLE_PANCREAS: mean.copy()},
        "labels": {"foreground": scheme.foreground, "ignore": scheme.ignore},
        "n_cases": len(names),
        "empty_in_both": {
            "count": len(empty),
            "cases": empty,
            "note": "reference and prediction are empty: Dice and IoU are null and left out of the means",
        },
        "missing_predictions": missing,
        "rounded_to_whole_labels": [path for _, rounded in compared for path in rounded],
        "metric_per_case": cases,
    }


def compare_case(
    reference: Path, prediction: Path, reader: BaseReaderWriter, scheme: LabelScheme
) -> tuple[CaseOverlap, list[str]]:
    """Return nnU-Net's metrics of one case, and those of its two files whose values had to be rounded."""
    pair = read_pair(reference, prediction, reader, scheme)
    result = pair.compute_metrics([scheme.foreground])
    result["metrics"] = {WHOLE_PANCREAS: result["metrics"][scheme.foreground]}
    return cast(CaseOverlap, result), pair.rounded


def mean_metrics(per_case: Sequence[OverlapMetrics]) -> OverlapMetrics:
    """Average each metric over the cases in which it is defined; NaN if there is none."""
    columns = {key: np.array([dict(case)[key] for case in per_case], dtype=float) for key in per_case[0]}
    means = {
        key: float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
        for key, values in columns.items()
    }
    return cast(OverlapMetrics, means)
