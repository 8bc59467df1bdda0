"""Class scores and Dice of several candidates on the same cases, on every resample at once.

A resample is a vector of counts, see :mod:`nnunet_3dct.evaluation.bootstrap`. Other than there, a resample may lack
classes, as the cases left out of a resample do: averages run over the classes that it holds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_3dct.evaluation.resampled_metrics import confusion_matrices, resampled_auc
from nnunet_3dct.formats.class_label_files import UNKNOWN
from nnunet_3dct.formats.selection import SelectionMetric


@dataclass(frozen=True)
class ScoredCases:
    """What K candidates say of the same N cases.

    Attributes:
        truth: classes ``(N,)``, -1 for unknown: such a case counts for the Dice alone.
        predicted: classes ``(K, N)``.
        probabilities: ``(N, C)`` of each candidate, None where it has none.
        dice: ``(K, N, L)`` of L foreground labels, NaN where there is none.
        num_classes: C.
        units: what is drawn, a number for each case ``(N,)``: its patient, or itself.
    """

    truth: np.ndarray
    predicted: np.ndarray
    probabilities: Sequence[np.ndarray | None]
    dice: np.ndarray
    num_classes: int
    units: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Which cases have a class, boolean ``(N,)``."""
        return np.asarray(self.truth != UNKNOWN)


def class_scores(cases: ScoredCases, counts: np.ndarray, metric: SelectionMetric) -> np.ndarray:
    """Score every candidate on every resample.

    Args:
        cases: of K candidates.
        counts: how often each case occurs in each resample ``(R, N)``.
        metric: which score.

    Returns:
        ``(R, K)``, NaN where a score has no value: no case of known class in the resample, for the AUC also no
        probabilities or a single class.
    """
    known = cases.known
    drawn, truth = counts[:, known], cases.truth[known]
    if metric == "auc_macro":
        columns = [None if p is None else p[known] for p in cases.probabilities]
        return np.stack([_auc(drawn, truth, p) for p in columns], axis=1)
    score = _macro_f1 if metric == "f1_macro" else _balanced_accuracy
    confusions = [confusion_matrices(drawn, truth, p[known], cases.num_classes) for p in cases.predicted]
    return np.stack([score(confusion) for confusion in confusions], axis=1)


def mean_dice(cases: ScoredCases, counts: np.ndarray) -> np.ndarray:
    """Mean foreground Dice of every candidate on every resample, as nnU-Net averages.

    Returns:
        ``(R, K)``: mean over the cases that have a Dice, then over the labels; NaN without any.
    """
    given = ~np.isnan(cases.dice)
    total = np.einsum("rn,knl->rkl", counts, np.nan_to_num(cases.dice), optimize=True)
    number = np.einsum("rn,knl->rkl", counts, given.astype(float), optimize=True)
    return _mean(np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0))


def _macro_f1(confusion: np.ndarray) -> np.ndarray:
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, called = confusion.sum(axis=2), confusion.sum(axis=1)
    return _mean(np.divide(2 * hits, support + called, out=np.full_like(hits, np.nan), where=support > 0))


def _balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    hits, support = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=2)
    return _mean(np.divide(hits, support, out=np.full_like(hits, np.nan), where=support > 0))


def _auc(counts: np.ndarray, truth: np.ndarray, probabilities: np.ndarray | None) -> np.ndarray:
    """One against the rest, averaged over the classes of each resample."""
    if probabilities is None:
        return np.full(len(counts), np.nan)
    areas = np.full((len(counts), probabilities.shape[1]), np.nan)
    with np.errstate(invalid="ignore"):  # 0 / 0, a class without a case or without the rest: NaN
        for label in np.unique(truth):
            positive = truth == label
            if not positive.all():
                areas[:, label] = resampled_auc(counts, positive, probabilities[:, label])
    return _mean(areas)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where nothing else is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean: np.ndarray = np.nanmean(values, axis=-1)
    return mean
