"""Bootstrap of cases or patients: how resamples are drawn, and intervals of what they give.

A resample is a vector of counts: how often each case was drawn. All that compares predictions draws from here, so that
the same seed gives the same cases everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.evaluation.resampled_metrics import PER_CLASS, resampled_metrics
from nnunet_3dct.formats.class_label_files import patients_of

Intervals = dict[str, tuple[float, float]]


def check_resampling(resamples: int, seed: int) -> None:
    """Raise SettingsError for negative numbers."""
    if resamples < 0 or seed < 0:
        raise SettingsError(f"resamples and seed: expected integers >= 0, found {resamples} and {seed}.")


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


def units_of(cases: Sequence[str], groups: Mapping[str, str]) -> np.ndarray:
    """Number of the patient of each case ``(N,)``; cases without an entry in ``groups`` stand alone."""
    names = patients_of(cases, groups)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def draw_units(truth: np.ndarray, units: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw patients, each with all its cases, with replacement and within each class.

    The class of a patient is that of most of its cases, at a tie the lowest. With a patient for each case this is
    :func:`draw_counts`.

    Args:
        truth: class of every case ``(N,)``.
        units: patient of every case ``(N,)``, numbered from 0.
        resamples: R.
        seed: of the random numbers.

    Returns:
        ``(R, N)`` float array: how often each case occurs in each resample.
    """
    return draw_counts(classes_of_units(truth, units), resamples, seed)[:, units]


def classes_of_units(truth: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Class of each patient, that of most of its cases, at a tie the lowest."""
    classes = []
    for unit in range(units.max() + 1):
        values, numbers = np.unique(truth[units == unit], return_counts=True)
        classes.append(values[numbers.argmax()])
    return np.array(classes)


def draw_patients(units: np.ndarray, resamples: int) -> np.ndarray:
    """Draw patients, each with all its cases, with replacement and whatever their class; a resample may lack a class.

    Resample r has the seed r, so that further resamples leave the first ones as they are.

    Args:
        units: patient of every case ``(N,)``, numbered from 0.
        resamples: R.

    Returns:
        ``(R, N)`` float array: how often each case occurs in each resample.
    """
    number = int(units.max()) + 1
    drawn = (np.random.default_rng(seed).integers(0, number, number) for seed in range(resamples))
    return np.stack([np.bincount(chosen, minlength=number) for chosen in drawn]).astype(float)[:, units]


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """``(low, high)`` of resampled values ``(R,)``."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def known_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
    """``(low, high)`` of resampled values ``(R,)`` without those that are NaN; None if all are."""
    known = values[~np.isnan(values)]
    return percentile_interval(known, level) if len(known) else None


def mean_interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float] | None:
    """95 % interval of the mean of ``values`` ``(N,)``; None with fewer than two values or no resamples."""
    if not resamples or len(values) < 2:
        return None
    return percentile_interval(draw_counts(np.zeros(len(values), int), resamples, seed) @ values / len(values))


def metric_intervals(metrics: dict[str, np.ndarray], level: float = 0.95) -> Intervals:
    """Return the percentile interval of each metric of :func:`resampled_metrics` that is one number."""
    return {name: percentile_interval(values, level) for name, values in metrics.items() if values.ndim == 1}


def class_intervals(metrics: dict[str, np.ndarray], level: float = 0.95) -> dict[str, list[tuple[float, float] | None]]:
    """Return the interval of each ``_per_class`` metric of :func:`resampled_metrics`, None for absent classes."""
    return {
        name: [None if np.isnan(column).any() else percentile_interval(column, level) for column in values.T]
        for name, values in metrics.items()
        if name.endswith(PER_CLASS)
    }


def confidence_intervals(
    truth: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray | None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Intervals:
    """Return the percentile interval of each metric of :func:`resampled_metrics` that is one number.

    What is drawn are the cases, so the interval tells how far the number would move with other cases of the
    same kind; it says nothing about training the network again.
    """
    metrics = resampled_metrics(draw_counts(truth, resamples, seed), truth, predicted, probabilities)
    return metric_intervals(metrics, level)
