"""One estimate for both tasks from the validation predictions of all folds."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.bootstrap import check_resampling
from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS
from nnunet_3dct.evaluation.classification import evaluate_predictions
from nnunet_3dct.evaluation.out_of_fold import FoldPredictions
from nnunet_3dct.evaluation.segmentation import evaluate_segmentation
from nnunet_3dct.evaluation.segmentation_summary import summarize_structure
from nnunet_3dct.evaluation.trained_folds import TrainedFolds, find_trained_folds
from nnunet_3dct.formats.class_label_files import UNKNOWN
from nnunet_3dct.formats.class_labels import ClassLabels
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.metrics_class import ClassificationMetrics
from nnunet_3dct.formats.metrics_crossval import (
    CrossvalClassification,
    CrossvalMetrics,
    CrossvalSegmentation,
    Spread,
)
from nnunet_3dct.formats.metrics_segmentation import AVERAGED, CaseSegmentation, SegmentationMetrics


def cross_validate(
    model: Path | str,
    *,
    folds: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    tolerance: float = 2.0,
    num_processes: int = 1,
    resamples: int = 2000,
    seed: int = 0,
) -> CrossvalMetrics:
    """Put the out-of-fold predictions of a model together: every case is predicted by a network that has not seen it.

    Splits, reference segmentations and class labels are those of the dataset in ``nnUNet_preprocessed`` (class labels
    also of ``nnUNet_raw``).

    Args:
        model: folder of the trained model, with ``fold_X/validation``.
        folds: numbers; None for all that have a validation.
        class_names: of the classes; None for those of the model's ``dataset.json``.
        tolerance: of the surface Dice, in mm.
        num_processes: cases compared at the same time (threads).
        resamples: of the bootstrap over all cases, 0 for no intervals.
        seed: of the resamples.

    Returns:
        The content of ``crossval_metrics.json``: ``segmentation`` and ``classification``, each with ``pooled`` (over
        all cases, as in the files of one folder), ``per_fold`` and ``spread`` (mean and standard deviation of the
        folds' own values), ``folds`` with their cases, and ``warnings``. Folds whose cases are all of unknown class
        have no class metrics of their own.

    Raises:
        SettingsError: a setting is out of range, or a variable of nnU-Net is not set.
        EvaluationError: predictions are missing, or do not fit references or labels.
        ClassLabelsError: the class labels cannot be used.
        ImageError: a segmentation is unreadable or damaged.

    Examples:
        >>> import nnunet_3dct
        >>> result = nnunet_3dct.cross_validate(model, resamples=200)
        >>> sorted(result["folds"])
        ['0']
        >>> result["classification"]["pooled"]["n_samples"]
        3
        >>> sorted(result["segmentation"]["pooled"])
        ['lesion', 'organ', 'whole_organ']
    """
    check_resampling(resamples, seed)
    trained = find_trained_folds(model, folds, class_names)
    return cross_validate_folds(
        trained, class_names, tolerance=tolerance, num_processes=num_processes, resamples=resamples, seed=seed
    )


def cross_validate_folds(
    trained: TrainedFolds,
    class_names: Sequence[str] | None = None,
    *,
    tolerance: float = 2.0,
    num_processes: int = 1,
    resamples: int = 2000,
    seed: int = 0,
) -> CrossvalMetrics:
    """What :func:`cross_validate` returns, from predictions that are already read."""
    labels, names = trained.labels, class_names or trained.class_names
    segmentations = {}
    for fold in trained.folds:
        result = evaluate_segmentation(
            trained.references,
            fold.folder,
            trained.dataset_json,
            tolerance=tolerance,
            num_processes=num_processes,
            cases=set(fold.predictions),
        )
        _check_segmentations(fold, {case["case"] for case in result["metric_per_case"]})
        segmentations[fold.fold] = result
    per_fold = {
        str(fold.fold): evaluate_predictions(fold.predictions, labels, names, resamples=0, seed=0)
        for fold in trained.folds
        if _known(fold.predictions, labels)
    }
    pooled = None
    if _known(trained.predictions, labels):
        pooled = evaluate_predictions(trained.predictions, labels, names, resamples=resamples, seed=seed)
    return {
        "model": trained.model.name,
        "warnings": trained.warnings,
        "folds": {str(fold.fold): sorted(fold.predictions) for fold in trained.folds},
        "segmentation": _segmentation(segmentations),
        "classification": _classification(pooled, per_fold),
    }


def _check_segmentations(fold: FoldPredictions, segmented: set[str]) -> None:
    missing = sorted(set(fold.predictions) - segmented)
    if missing:
        raise EvaluationError(
            f"{fold.folder}: expected segmentation and class of each case, found a class but no segmentation of "
            f"{listing(missing, 5)}. Run the validation of this fold again (nnUNetv2_train ... --val)."
        )


def _known(predictions: Mapping[str, ClassPrediction], labels: ClassLabels) -> bool:
    return any(labels.by_case.get(case, UNKNOWN) != UNKNOWN for case in predictions)


def _segmentation(results: Mapping[int, SegmentationMetrics]) -> CrossvalSegmentation:
    cases: list[CaseSegmentation] = [
        {"fold": fold, "case": case["case"], "metrics": case["metrics"]}
        for fold, result in results.items()
        for case in result["metric_per_case"]
    ]
    first = next(iter(results.values()))
    per_fold = {
        str(fold): {
            name: {key: structure[key]["mean"] for key in AVERAGED} for name, structure in result["structures"].items()
        }
        for fold, result in results.items()
    }
    return {
        "settings": first["settings"],
        "pooled": {
            name: summarize_structure(cases, name, structure["labels"])
            for name, structure in first["structures"].items()
        },
        "per_fold": per_fold,
        "spread": {
            name: {key: mean_and_sd([means[name][key] for means in per_fold.values()]) for key in AVERAGED}
            for name in first["structures"]
        },
        "metric_per_case": cases,
    }


def _classification(
    pooled: ClassificationMetrics | None, metrics: Mapping[str, ClassificationMetrics]
) -> CrossvalClassification:
    per_fold: dict[str, dict[str, float | None]] = {
        fold: {**{key: of_fold[key] for key in CLASS_METRICS}, "n_samples": of_fold["n_samples"]}
        for fold, of_fold in metrics.items()
    }
    spread: dict[str, Spread] = {
        key: mean_and_sd([of_fold[key] for of_fold in per_fold.values()]) for key in CLASS_METRICS
    }
    return {"pooled": pooled, "per_fold": per_fold, "spread": spread}


def mean_and_sd(values: Sequence[float | None]) -> Spread:
    """Mean and standard deviation (n - 1) of the folds that have a value."""
    given = np.array([value for value in values if value is not None], dtype=float)
    return {
        "mean": float(given.mean()) if len(given) else None,
        "sd": float(given.std(ddof=1)) if len(given) > 1 else None,
        "n": len(given),
    }


def to_csv(result: CrossvalMetrics, trained: TrainedFolds) -> str:
    """Lay out one line a case: fold, classes, probabilities, and Dice of each structure."""
    predictions = trained.predictions
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
            [name, case["fold"], trained.labels.by_case.get(name, UNKNOWN), predictions[name].label, *probabilities]
            + ["" if value is None else f"{value:.6f}" for value in dice]
        )
    return buffer.getvalue()
