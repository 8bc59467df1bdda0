"""Class metrics on all resamples of a bootstrap at once.

A resample is a vector of counts, see :mod:`nnunet_3dct.evaluation.bootstrap`. Every metric is then a weighted sum over
the cases, so that all resamples take a few matrix products instead of one call of scikit-learn each.
"""

from __future__ import annotations

import numpy as np

from nnunet_3dct.evaluation.reliability import BINS, brier_terms, confidence_bins

PER_CLASS = "_per_class"


def resampled_metrics(
    counts: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray | None,
    num_classes: int | None = None,
) -> dict[str, np.ndarray]:
    """Compute every metric on every resample.

    Args:
        counts: as :func:`~nnunet_3dct.evaluation.bootstrap.draw_counts` gives them, ``(R, N)``; each class of
            ``truth`` is drawn at least once.
        truth: true classes ``(N,)``, 0-based.
        predicted: predicted classes ``(N,)``, 0-based.
        probabilities: class probabilities ``(N, C)``, or None, which leaves out what needs them.
        num_classes: C; None for the highest class that occurs.

    Returns:
        The metrics of :func:`~nnunet_3dct.evaluation.class_metrics.class_metrics` under their names, each ``(R,)``,
        those that end in ``_per_class`` ``(R, C)`` with NaN for classes that ``truth`` lacks. Where ``truth`` holds a
        single class, what compares two is left out.
    """
    size = num_classes or int(max(truth.max(), predicted.max())) + 1
    metrics = confusion_metrics(confusion_matrices(counts, truth, predicted, size), np.unique(truth))
    if probabilities is not None:
        metrics |= _probability_metrics(counts, truth, probabilities)
    return metrics


def confusion_matrices(counts: np.ndarray, truth: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Confusion matrix on every resample, ``(R, C, C)``, rows truth.

    Args:
        counts: ``(R, N)``.
        truth, predicted: classes ``(N,)``, 0-based.
        size: C.
    """
    cells = np.eye(size * size)[truth * size + predicted]  # (N, C*C): the cell of the confusion matrix of a case
    confusion: np.ndarray = (counts @ cells).reshape(len(counts), size, size)
    return confusion


def confusion_metrics(confusion: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
    """Compute what follows from confusion matrices alone.

    Args:
        confusion: ``(R, C, C)``, rows truth.
        present: classes that the truth holds.

    Returns:
        As :func:`resampled_metrics`. Matthews' coefficient is 0 where all predictions are of one class.
    """
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, called = confusion.sum(axis=2), confusion.sum(axis=1)
    total = support.sum(axis=1)
    weights = support / total[:, None]
    per_class = {
        "precision": np.divide(hits, called, out=np.zeros_like(hits), where=called > 0),
        "recall": np.divide(hits, support, out=np.zeros_like(hits), where=support > 0),
        "f1": np.divide(2 * hits, support + called, out=np.zeros_like(hits), where=support + called > 0),
    }
    accuracy = hits.sum(axis=1) / total
    metrics = {"accuracy": accuracy, "balanced_accuracy": per_class["recall"][:, present].mean(axis=1)}
    for name, values in per_class.items():
        metrics[f"{name}_macro"] = values[:, present].mean(axis=1)
        metrics[f"{name}_micro"] = accuracy
        metrics[f"{name}_weighted"] = (values * weights).sum(axis=1)
        metrics[name + PER_CLASS] = _only(present, values)
    if len(present) > 1:
        chance = (support * called).sum(axis=1) / total**2
        metrics["cohen_kappa"] = (accuracy - chance) / (1 - chance)
        spread = (1 - (weights**2).sum(axis=1)) * (1 - ((called / total[:, None]) ** 2).sum(axis=1))
        metrics["matthews_corrcoef"] = np.divide(
            accuracy - chance, np.sqrt(spread), out=np.zeros_like(accuracy), where=spread > 1e-12
        )
    return metrics


def _probability_metrics(counts: np.ndarray, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    number = len(truth)
    bins, gaps = confidence_bins(truth, probabilities)
    metrics = {
        "brier_score": counts @ brier_terms(truth, probabilities) / number,
        "expected_calibration_error": np.abs(counts @ (np.eye(BINS)[bins] * gaps[:, None])).sum(axis=1) / number,
    }
    present, sizes = np.unique(truth, return_counts=True)
    if len(present) == 1:
        return metrics
    for name, area in (("auc", resampled_auc), ("average_precision", resampled_average_precision)):
        per_class = np.full((len(counts), probabilities.shape[1]), np.nan)
        for label in present:
            per_class[:, label] = area(counts, truth == label, probabilities[:, label])
        metrics[f"{name}_macro"] = per_class[:, present].mean(axis=1)
        metrics[f"{name}_weighted"] = per_class[:, present] @ (sizes / number)
        metrics[name + PER_CLASS] = per_class
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
    positives, negatives = _by_score(counts, positive, score)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    area: np.ndarray = (positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))
    return area


def resampled_average_precision(counts: np.ndarray, positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Compute the average precision on every resample: the mean precision at the score of each positive case.

    Arguments and result as in :func:`resampled_auc`; cases of equal score are called positive together, as in
    scikit-learn.
    """
    positives, negatives = (drawn[:, ::-1] for drawn in _by_score(counts, positive, score))
    hits = np.cumsum(positives, axis=1)
    called = hits + np.cumsum(negatives, axis=1)
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    mean: np.ndarray = (positives * precision).sum(axis=1) / positives.sum(axis=1)
    return mean


def _by_score(counts: np.ndarray, positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drawn positive and negative cases of each distinct score, from low to high, ``(R, S)`` each."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])  # first case of each distinct score
    drawn = counts[:, order]
    return (
        np.add.reduceat(drawn * positive[order], starts, axis=1),
        np.add.reduceat(drawn * ~positive[order], starts, axis=1),
    )


def _only(present: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``values`` ``(R, C)`` of the classes that are ``present``, NaN for the others."""
    kept = np.full_like(values, np.nan)
    kept[:, present] = values[:, present]
    return kept
