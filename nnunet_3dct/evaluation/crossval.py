"""One estimate for both tasks from the validation predictions of all folds."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS
from nnunet_3dct.evaluation.classification import evaluate_predictions
from nnunet_3dct.evaluation.out_of_fold import FoldPredictions
from nnunet_3dct.evaluation.segmentation import AVERAGED, evaluate_segmentation, summarize
from nnunet_3dct.formats.class_files import ClassPrediction
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels


def cross_validate(
    folds: Sequence[FoldPredictions],
    references: Path,
    dataset_json: Path,
    labels: ClassLabels,
    class_names: Sequence[str] | None = None,
    *,
    tolerance: float = 2.0,
    num_processes: int = 1,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Put the out-of-fold predictions together.

    Args:
        folds: of :func:`~nnunet_3dct.evaluation.out_of_fold.read_out_of_fold`.
        references: folder of the reference segmentations of all cases.
        dataset_json: of the dataset.
        labels: class of every case; folds whose cases are all unknown have no class metrics of their own.
        class_names: of the classes.
        tolerance: of the surface Dice, in mm.
        num_processes: cases compared at the same time (threads).
        resamples, seed: of the bootstrap over all cases.

    Returns:
        The content of ``crossval_metrics.json``: ``segmentation`` and ``classification``, each with ``pooled`` (over
        all cases, as in the files of one folder), ``per_fold`` and ``spread`` (mean and standard deviation of the
        folds' own values), ``folds`` with their cases.

    Raises:
        EvaluationError: predictions do not fit references or labels.
        ImageError: a segmentation is unreadable or damaged.
    """
    segmentations = {}
    for fold in folds:
        result = evaluate_segmentation(
            references, fold.folder, dataset_json, tolerance=tolerance, num_processes=num_processes, chill=True
        )  # fmt: skip
        _check_segmentations(fold, {case["case"] for case in result["metric_per_case"]})
        segmentations[fold.fold] = result
    predictions = {case: p for fold in folds for case, p in fold.predictions.items()}
    options = {"resamples": resamples, "seed": seed}
    pooled = evaluate_predictions(predictions, labels, class_names, **options) if _known(predictions, labels) else None
    return {
        "folds": {str(fold.fold): sorted(fold.predictions) for fold in folds},
        "segmentation": _segmentation(segmentations),
        "classification": {
            "pooled": pooled,
            **_spread_of_classes(
                {
                    str(fold.fold): evaluate_predictions(fold.predictions, labels, class_names, resamples=0, seed=0)
                    for fold in folds
                    if _known(fold.predictions, labels)
                }
            ),
        },
    }


def _check_segmentations(fold: FoldPredictions, found: set[str]) -> None:
    for cases, words in (
        (set(fold.predictions) - found, "a class but no"),
        (found - set(fold.predictions), "no class but a"),
    ):
        if cases:
            raise EvaluationError(
                f"{fold.folder}: expected segmentation and class of each case, found {words} segmentation of "
                f"{listing(sorted(cases), 5)}. Run the validation anew (nnUNetv2_train ... --val)."
            )


def _known(predictions: Mapping[str, ClassPrediction], labels: ClassLabels) -> bool:
    return any(labels.by_case.get(case, UNKNOWN) != UNKNOWN for case in predictions)


def _segmentation(results: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    cases = [{"fold": fold, **case} for fold, result in results.items() for case in result["metric_per_case"]]
    first = next(iter(results.values()))
    pooled, spread, per_fold = {}, {}, {}
    for name, structure in first["structures"].items():
        pooled[name] = {
            "labels": structure["labels"],
            **summarize([(case["case"], case["metrics"][name]) for case in cases]),
        }
        means = {key: [result["structures"][name][key]["mean"] for result in results.values()] for key in AVERAGED}
        spread[name] = {key: mean_and_sd(values) for key, values in means.items()}
    for fold, result in results.items():
        per_fold[str(fold)] = {
            name: {key: structure[key]["mean"] for key in AVERAGED} for name, structure in result["structures"].items()
        }
    return {
        "settings": first["settings"],
        "pooled": pooled,
        "per_fold": per_fold,
        "spread": spread,
        "metric_per_case": cases,
    }


def _spread_of_classes(metrics: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    per_fold = {fold: {key: found[key] for key in (*CLASS_METRICS, "n_samples")} for fold, found in metrics.items()}
    spread = {key: mean_and_sd([found[key] for found in per_fold.values()]) for key in CLASS_METRICS}
    return {"per_fold": per_fold, "spread": spread}


def mean_and_sd(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) of the folds that have a value."""
    given = np.array([value for value in values if value is not None], dtype=float)
    return {
        "mean": given.mean() if len(given) else None,
        "sd": given.std(ddof=1) if len(given) > 1 else None,
        "n": len(given),
    }


def to_csv(result: Mapping[str, Any], folds: Sequence[FoldPredictions], labels: ClassLabels) -> str:
    """Lay out one line a case: fold, classes, probabilities, and Dice of each structure."""
    predictions = {case: p for fold in folds for case, p in fold.predictions.items()}
    structures = list(result["segmentation"]["pooled"])
    classes = max((p.num_classes or 0 for p in predictions.values()), default=0)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = ["case", "fold", "class", "predicted", *(f"probability_{k}" for k in range(classes))]
    writer.writerow([*header, *(f"Dice_{name}" for name in structures)])
    for case in result["segmentation"]["metric_per_case"]:
        name = case["case"]
        rows = predictions[name].probabilities
        probabilities = [""] * classes if rows is None else [f"{p:.6f}" for p in rows]
        dice = [case["metrics"][structure]["Dice"] for structure in structures]
        writer.writerow(
            [name, case["fold"], labels.by_case.get(name, UNKNOWN), predictions[name].label, *probabilities]
            + ["" if value is None else f"{value:.6f}" for value in dice]
        )
    return buffer.getvalue()
