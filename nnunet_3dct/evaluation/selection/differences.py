"""Differences between candidates with intervals that hold for all of them together.

The largest of many differences is large by chance alone. So the half-width is the quantile of the *largest* deviation
of all differences in a resample, each divided by its standard error (the bootstrap form of Tukey's and Dunnett's
comparisons; Romano and Wolf 2005). With few cases some standard errors are small by chance, and their differences would
be called real too often: the median of all is added to each (Tusher, Tibshirani and Chu 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK = 64  # resamples at a time: keeps (chunk, K, K) small
SMALLEST = 1e-9  # standard errors below are of candidates that never differ


@dataclass(frozen=True)
class HalfWidths:
    """Half-widths of the intervals of the differences of K candidates.

    Attributes:
        all_pairs: ``(K, K)``, of all pairs together: one of a pair may be chosen as the best after the scores are seen.
        to_reference: ``(K,)``, of all differences to one candidate that was named before.
    """

    all_pairs: np.ndarray
    to_reference: np.ndarray


def half_widths(
    scores: np.ndarray, resampled: np.ndarray, reference: int, *, widening: float = 1.0, level: float = 0.95
) -> HalfWidths:
    """Find half-widths from resamples that draw the same cases for all candidates.

    Args:
        scores: of all cases ``(K,)``.
        resampled: on each resample ``(R, K)``.
        reference: number of the candidate that was named before.
        widening: see :func:`small_sample_widening`.
        level: at which all intervals of a kind hold together.
    """
    deviations = resampled - scores
    errors = np.stack([np.std(resampled - resampled[:, [k]], axis=0) for k in range(len(scores))])
    differ = errors > SMALLEST
    scale = np.where(differ, errors + np.median(errors[differ]), 0) if differ.any() else np.zeros_like(errors)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=differ)
    largest, largest_to_reference = np.empty(len(resampled)), np.empty(len(resampled))
    for start in range(0, len(resampled), CHUNK):
        part = deviations[start : start + CHUNK]
        relative = np.abs(part[:, :, None] - part[:, None, :]) * inverse
        largest[start : start + CHUNK] = relative.max(axis=(1, 2))
        largest_to_reference[start : start + CHUNK] = relative[:, :, reference].max(axis=1)
    factors = [float(np.quantile(values, level)) * widening for values in (largest, largest_to_reference)]
    return HalfWidths(factors[0] * scale, factors[1] * scale[:, reference])


def small_sample_widening(sizes: np.ndarray) -> float:
    """Factor by which a stratified bootstrap underrates standard errors.

    It divides by m where the variance of m cases needs m - 1, in each class.

    Args:
        sizes: drawn patients, or cases, of each class; those of a single one do not vary and are left out.
    """
    varying = sizes[sizes > 1]
    return float(np.sqrt(np.mean(varying / (varying - 1)))) if len(varying) else 1.0
