"""One temperature for the class probabilities of a model, fitted to its out-of-fold predictions (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax
from typing_extensions import TypedDict

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.classified_cases import classified_cases
from nnunet_3dct.evaluation.reliability import calibration_metrics
from nnunet_3dct.evaluation.temperature import HIGHEST, LOWEST, fit_temperature, held_out_parts, log_loss
from nnunet_3dct.evaluation.trained_folds import TrainedFolds, find_trained_folds
from nnunet_3dct.formats.calibration import Calibration, remove_calibration, write_calibration
from nnunet_3dct.formats.metrics_class import CalibrationMetrics

FEW_CASES = 50
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


class ProbabilityQuality(CalibrationMetrics):
    """Log loss, Brier score, calibration error and reliability diagram of class probabilities."""

    log_loss: float


class ReviewRow(TypedDict):
    """Share of cases whose highest probability is below ``threshold``, and accuracy of the others."""

    threshold: float
    share_for_review: float
    accuracy_of_rest: float | None


class TemperatureFit(TypedDict):
    """A temperature and what it is worth on cases that it was not fitted to; see :func:`fit_calibration`."""

    temperature: float
    before: ProbabilityQuality
    after: ProbabilityQuality | None
    helps: bool
    review: list[ReviewRow]


def calibrate(model: Path | str, *, folds: Sequence[int] | None = None, write: bool = True) -> Calibration:
    """Fit one temperature to the class predictions of the validation cases of all folds.

    Predictions then give ``softmax(logits / temperature)``: the predicted class stays what it is, its probability
    changes. Where the temperature does not lower the log loss of cases that it was not fitted to, none is stored, and
    one that is there is deleted.

    Args:
        model: folder of the trained model, with ``fold_X/validation``.
        folds: numbers; None for all that have a validation.
        write: store the result as ``calibration.json`` in the model folder, where predictions find it.

    Returns:
        The content of ``calibration.json``.

    Raises:
        SettingsError: a variable of nnU-Net is not set, or there is no such fold.
        EvaluationError: predictions are missing, have no probabilities, or do not name the weights of their head.
        ClassLabelsError: the class labels cannot be used.
        OutputError: the file cannot be written.

    Examples:
        >>> import nnunet_3dct
        >>> calibration = nnunet_3dct.calibrate(model, write=False)
        >>> calibration["n_cases"], calibration["folds"]
        (3, [0])
        >>> 0.05 <= calibration["temperature"] <= 20
        True
    """
    trained = find_trained_folds(model, folds)
    calibration = calibrate_folds(trained)
    if write and calibration["helps"]:
        write_calibration(calibration, trained.model)
    elif write:
        remove_calibration(trained.model)
    return calibration


def calibrate_folds(trained: TrainedFolds) -> Calibration:
    """What :func:`calibrate` returns, from predictions that are already read; writes nothing."""
    fold_of = {case: fold.fold for fold in trained.folds for case in fold.predictions}
    cases = classified_cases(trained.predictions, trained.labels, trained.class_names)
    if cases.probabilities is None:
        raise EvaluationError(
            f"{trained.model}: expected probabilities of every validation case, found none of "
            f"{listing(cases.without_probabilities or cases.cases, 5)}."
        )
    logits = np.log(np.clip(cases.probabilities, 1e-12, None))
    fit = fit_calibration(logits, cases.truth, np.array([fold_of[case] for case in cases.cases]))
    return {
        "n_cases": len(cases.cases),
        "folds": [fold.fold for fold in trained.folds],
        "head_weights": _head_weights(trained),
        "temperature": fit["temperature"],
        "before": {**fit["before"]},
        "after": None if fit["after"] is None else {**fit["after"]},
        "helps": fit["helps"],
        "review": [{**row} for row in fit["review"]],
        "warnings": [*trained.warnings, *_doubts(fit, len(cases.cases))],
    }


def fit_calibration(logits: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> TemperatureFit:
    """Fit a temperature to all cases and measure what it is worth on cases that it was not fitted to.

    Args:
        logits: out-of-fold logits ``(N, C)``.
        truth: classes ``(N,)``.
        folds: fold of each case ``(N,)``.

    Returns:
        ``temperature``; ``before`` and ``after`` with ``log_loss``, ``brier_score``, ``expected_calibration_error``
        and ``reliability``, the latter cross-fitted (None if there are too few cases for that); ``helps``: whether
        that lowers the log loss; ``review``: for several thresholds of the highest probability, calibrated if that
        helps, the share of cases below it and the accuracy of the others.
    """
    parts = held_out_parts(truth, folds)
    scaled = np.full_like(logits, np.nan)
    for part in np.unique(parts):
        rest = parts != part
        if rest.any():
            scaled[~rest] = logits[~rest] / fit_temperature(logits[rest], truth[rest])
    before = _quality(logits, truth)
    after = None if np.isnan(scaled).any() else _quality(scaled, truth)
    helps = after is not None and after["log_loss"] < before["log_loss"]
    return {
        "temperature": fit_temperature(logits, truth),
        "before": before,
        "after": after,
        "helps": helps,
        "review": review_table(softmax(scaled if helps else logits, axis=1), truth),
    }


def review_table(
    probabilities: np.ndarray, truth: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> list[ReviewRow]:
    """For each threshold: the share of cases whose highest probability is below, and the accuracy of the others."""
    highest, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    rows: list[ReviewRow] = []
    for threshold in thresholds:
        kept = highest >= threshold
        accuracy = float(correct[kept].mean()) if kept.any() else None
        rows.append({"threshold": threshold, "share_for_review": float(1 - kept.mean()), "accuracy_of_rest": accuracy})
    return rows


def _quality(logits: np.ndarray, truth: np.ndarray) -> ProbabilityQuality:
    return {"log_loss": log_loss(logits, truth), **calibration_metrics(truth, softmax(logits, axis=1))}


def _head_weights(trained: TrainedFolds) -> dict[str, str]:
    """Fold -> fingerprint of its head, which the predictor compares with the network that it loads."""
    weights = {}
    for fold in trained.folds:
        if fold.head_weights is None:
            raise EvaluationError(
                f"{fold.folder}: expected class files that name the head's weights, found none (an earlier version "
                "wrote them). Run the validation anew: nnUNetv2_train ... --val."
            )
        weights[str(fold.fold)] = fold.head_weights
    return weights


def _doubts(fit: TemperatureFit, cases: int) -> list[str]:
    doubts = []
    if fit["after"] is None:
        doubts.append("too few cases to measure what the temperature is worth")
    if cases < FEW_CASES:
        doubts.append(f"{cases} cases are few for a calibration")
    if not LOWEST * 1.01 < fit["temperature"] < HIGHEST * 0.99:
        doubts.append(
            "the temperature lies at the end of its range: the network hardly tells the classes apart, or is right in "
            "every case"
        )
    return doubts
