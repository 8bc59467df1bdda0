"""How far class probabilities can be taken at their word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedKFold

BINS = 10


def calibration(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Compute Brier score, calibration error and the points of a reliability diagram.

    ``brier_score``: squared distance between probabilities and one-hot truth, summed over the classes and
    averaged over the cases: 0 is best, 2 worst, uniform guessing gives 1 - 1/C (Brier 1950).
    ``expected_calibration_error``: the cases fall into ten equal bins of their highest probability; the mean
    over the bins, weighted by cases, of |share correct - mean highest probability| (Guo et al. 2017).
    ``reliability``: for each bin its bounds, number of cases, mean highest probability and share correct, None in a
    bin without cases.

    Args:
        truth: true classes ``(N,)``.
        probabilities: ``(N, C)``.
    """
    bins, gaps = confidence_bins(truth, probabilities)
    confidence = probabilities.max(axis=1)
    counts = np.bincount(bins, minlength=BINS)
    reliability = []
    for k, count in enumerate(counts):
        inside = bins == k
        mean = float(confidence[inside].mean()) if count else None
        share = float((confidence + gaps)[inside].mean()) if count else None
        reliability.append(
            {"low": k / BINS, "high": (k + 1) / BINS, "n": int(count), "confidence": mean, "accuracy": share}
        )
    return {
        "brier_score": brier_terms(truth, probabilities).mean(),
        "expected_calibration_error": np.abs(np.bincount(bins, weights=gaps, minlength=BINS)).sum() / len(truth),
        "bins": BINS,
        "reliability": reliability,
    }


def brier_terms(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Squared distance of each case's probabilities ``(N, C)`` to its one-hot truth: ``(N,)``."""
    return np.sum((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2, axis=1)


def confidence_bins(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bin ``(N,)`` of each case's highest probability, and correct (0 or 1) minus that probability ``(N,)``."""
    confidence = probabilities.max(axis=1)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return bins, (probabilities.argmax(axis=1) == truth) - confidence


LOWEST, HIGHEST = 0.05, 20.0
PARTS = 5
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature T, 0.05 to 20, for which ``softmax(logits / T)`` has the least log loss.

    Args:
        logits: ``(N, C)``.
        truth: classes ``(N,)``.
    """
    found = minimize_scalar(
        lambda log_t: log_loss(logits / np.exp(log_t), truth), bounds=np.log([LOWEST, HIGHEST]), method="bounded"
    )
    return float(np.exp(found.x))


def log_loss(logits: np.ndarray, truth: np.ndarray) -> float:
    """Mean of minus the logarithm of the true class's probability."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(truth)), truth].mean())


def held_out_parts(truth: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Part ``(N,)`` of each case for cross-fitting: its fold, or with a single fold one of five stratified parts.

    All cases are in one part where even the rarest class has but one case.
    """
    if len(np.unique(folds)) > 1:
        return folds
    parts = min(PARTS, int(np.unique(truth, return_counts=True)[1].min()))
    found = np.zeros(len(truth), int)
    if parts > 1:
        splitter = StratifiedKFold(parts, shuffle=True, random_state=0)
        for part, (_, held_out) in enumerate(splitter.split(truth, truth)):
            found[held_out] = part
    return found


def calibrate(logits: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> dict[str, Any]:
    """Fit a temperature to all cases and tell what it is worth on cases that it was not fitted to.

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


def _quality(logits: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    return {"log_loss": log_loss(logits, truth), **calibration(truth, softmax(logits, axis=1))}


def review_table(
    probabilities: np.ndarray, truth: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> list[dict[str, Any]]:
    """For each threshold: the share of cases whose highest probability is below, and the accuracy of the others."""
    highest, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    rows = []
    for threshold in thresholds:
        kept = highest >= threshold
        accuracy = float(correct[kept].mean()) if kept.any() else None
        rows.append({"threshold": threshold, "share_for_review": float(1 - kept.mean()), "accuracy_of_rest": accuracy})
    return rows
