"""Stratified bootstrap of cases, vectorised over the resamples.

A resample is a vector of counts: how often each case was drawn. Every metric is then a weighted sum over the
cases, so that all resamples take a few matrix products instead of one call of scikit-learn each.
"""

from __future__ import annotations

import numpy as np

Intervals = dict[str, tuple[float, float]]


def draw_counts(truth: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw cases with replacement within each true class, so that each resample keeps the class sizes.

    Args:
        truth: class of every case, ``(N,)``.
        resamples: number of resamples ``R``.
        seed: seed of the random numbers; the same seed gives the same counts.

    Returns:
        ``(R, N)`` float array: how often each case occurs in each resample. Every row sums to N.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros((resamples, len(truth)))
    for label in np.unique(truth):
        members = np.flatnonzero(truth == label)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    return counts


def resampled_metrics(
    counts: np.ndarray, truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Compute every metric on every resample.

    Args:
        counts: result of :func:`draw_counts`, ``(R, N)``; each class of ``truth`` is drawn at least once.
        truth: true classes ``(N,)``, 0-based.
        predicted: predicted classes ``(N,)``, 0-based.
        probabilities: class probabilities ``(N, C)``, or None, which leaves ``auc_macro`` out. It is left out
            too when ``truth`` holds a single class.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``f1_macro``, ``f1_weighted`` and ``auc_macro``, each ``(R,)``,
        defined as in scikit-learn and averaged over the classes that occur in ``truth``.
    """
    size = int(max(truth.max(), predicted.max())) + 1
    cells = np.eye(size * size)[truth * size + predicted]  # (N, C*C): the cell of the confusion matrix of a case
    confusion = (counts @ cells).reshape(len(counts), size, size)
    present = np.unique(truth)
    hits = np.diagonal(confusion, axis1=1, axis2=2)[:, present]
    support = confusion.sum(axis=2)[:, present]
    called = confusion.sum(axis=1)[:, present]
    f1 = 2 * hits / (support + called)
    metrics = {
        "accuracy": np.trace(confusion, axis1=1, axis2=2) / confusion.sum(axis=(1, 2)),
        "balanced_accuracy": (hits / support).mean(axis=1),
        "f1_macro": f1.mean(axis=1),
        "f1_weighted": (f1 * support).sum(axis=1) / support.sum(axis=1),
    }
    if probabilities is not None and len(present) > 1:
        per_class = [resampled_auc(counts, truth == label, probabilities[:, label]) for label in present]
        metrics["auc_macro"] = np.mean(per_class, axis=0)
    return metrics


def resampled_auc(counts: np.ndarray, positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Compute the area under the ROC curve on every resample, from one sort of the scores.

    The area is the chance that a positive case scores above a negative one, a tie counting one half
    (Mann-Whitney).

    Args:
        counts: ``(R, N)``.
        positive: boolean ``(N,)``, with both values present.
        score: ``(N,)``, higher for positive.

    Returns:
        ``(R,)`` areas.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])  # first case of each distinct score
    drawn = counts[:, order]
    positives = np.add.reduceat(drawn * positive[order], starts, axis=1)
    negatives = np.add.reduceat(drawn * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return (positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))


def confidence_intervals(
    truth: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray | None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Intervals:
    """Return the percentile interval of each metric of :func:`resampled_metrics` as ``(low, high)``.

    What is drawn are the cases, so the interval tells how far the number would move with other cases of the
    same kind; it says nothing about training the network again.
    """
    metrics = resampled_metrics(draw_counts(truth, resamples, seed), truth, predicted, probabilities)
    tails = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for name, values in metrics.items():
        low, high = np.quantile(values, tails)
        intervals[name] = (float(low), float(high))
    return intervals
