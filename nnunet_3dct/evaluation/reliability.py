"""How far class probabilities can be taken at their word: Brier score, calibration error, reliability diagram."""

from __future__ import annotations

import numpy as np

from nnunet_3dct.formats.metrics_class import CalibrationMetrics, ReliabilityBin

BINS = 10


def calibration_metrics(truth: np.ndarray, probabilities: np.ndarray) -> CalibrationMetrics:
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
    reliability: list[ReliabilityBin] = []
    for k, count in enumerate(np.bincount(bins, minlength=BINS)):
        inside = bins == k
        mean = float(confidence[inside].mean()) if count else None
        share = float((confidence + gaps)[inside].mean()) if count else None
        reliability.append(
            {"low": k / BINS, "high": (k + 1) / BINS, "n": int(count), "confidence": mean, "accuracy": share}
        )
    error = np.abs(np.bincount(bins, weights=gaps, minlength=BINS)).sum() / len(truth)
    return {
        "brier_score": float(brier_terms(truth, probabilities).mean()),
        "expected_calibration_error": float(error),
        "bins": BINS,
        "reliability": reliability,
    }


def brier_terms(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Squared distance of each case's probabilities ``(N, C)`` to its one-hot truth: ``(N,)``."""
    distances: np.ndarray = np.sum((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2, axis=1)
    return distances


def confidence_bins(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bin ``(N,)`` of each case's highest probability, and correct (0 or 1) minus that probability ``(N,)``."""
    confidence = probabilities.max(axis=1)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return bins, (probabilities.argmax(axis=1) == truth) - confidence
