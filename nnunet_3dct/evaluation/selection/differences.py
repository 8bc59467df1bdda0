"""Differences between candidates with intervals that hold for all of them together.

The largest of many differences is large by chance alone. So the half-width is the quantile of the *largest* deviation
of all differences in a resample, each divided by its standard error (the bootstrap form of Tukey's and Dunnett's
comparisons; Romano and Wolf 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK = 64  # resamples at a time: keeps (chunk, K, K) small
SMALLEST = 1e-9  # standard errors below are of candidates that never differ


@dataclass(frozen=True)
class SimultaneousErrors:
    """Standard errors of all differences of K candidates, and by what they are multiplied.

    Attributes:
        errors: standard error of the difference of each pair ``(K, K)``.
        all_pairs: factor for all pairs together: one of a pair may be chosen as the best after the scores are seen.
        to_reference: factor for all differences to one candidate that was named before.
    """

    errors: np.ndarray
    all_pairs: float
    to_reference: float

    @property
    def margins(self) -> np.ndarray:
        """Half-width of the interval of each difference when all pairs are compared ``(K, K)``."""
        return self.all_pairs * self.errors


def simultaneous_errors(
    scores: np.ndarray, resampled: np.ndarray, reference: int, level: float = 0.95
) -> SimultaneousErrors:
    """Find standard errors and factors from resamples that draw the same cases for all candidates.

    Args:
        scores: of all cases ``(K,)``.
        resampled: on each resample ``(R, K)``.
        reference: number of the candidate that was named before.
        level: at which all intervals of a kind hold together.
    """
    deviations = resampled - scores
    errors = np.stack([np.std(resampled - resampled[:, [k]], axis=0) for k in range(len(scores))])
    inverse = np.divide(1, errors, out=np.zeros_like(errors), where=errors > SMALLEST)
    largest, largest_to_reference = np.empty(len(resampled)), np.empty(len(resampled))
    for start in range(0, len(resampled), CHUNK):
        part = deviations[start : start + CHUNK]
        studentized = np.abs(part[:, :, None] - part[:, None, :]) * inverse
        largest[start : start + CHUNK] = studentized.max(axis=(1, 2))
        largest_to_reference[start : start + CHUNK] = studentized[:, :, reference].max(axis=1)
    return SimultaneousErrors(
        errors, float(np.quantile(largest, level)), float(np.quantile(largest_to_reference, level))
    )
