"""What a way of choosing among candidates scores on cases that it did not choose with.

The score of the best of several candidates is too high: it was chosen for its luck with these very cases. Bootstrap
bias corrected cross-validation (Tsamardinos, Greasidou and Borboudakis 2018) repeats the choice on each resample and
scores the chosen candidate on the cases that the resample left out. No network is trained again: the candidates'
out-of-fold predictions are all that it takes.
"""

from __future__ import annotations

import numpy as np

from nnunet_3dct.evaluation.bootstrap import percentile_interval
from nnunet_3dct.formats.selection import Score

FEWEST = 0.5  # share of the resamples that must have a score out of the bag


def corrected_score(
    chosen: np.ndarray, out_of_bag: np.ndarray, scores: np.ndarray, share_out: float, level: float = 0.95
) -> Score:
    """Correct estimate and interval of a chosen candidate for the choice.

    Two things are added to the published method. A score such as macro-F1 is a little lower on fewer cases, whatever is
    chosen: the mean shift of the chosen candidates is taken off, so that with a single candidate nothing is
    corrected. And scores of a part of the cases spread more than scores of all: deviations are scaled as in the
    delete-d jackknife (Shao and Wu 1989), by sqrt(d / (n - d)) for d of n cases out of the bag.

    Args:
        chosen: candidate chosen on each resample ``(R,)``.
        out_of_bag: scores of all candidates on the cases that each resample left out ``(R, K)``, NaN for none.
        scores: of all cases ``(K,)``.
        share_out: share of cases (or patients) that a resample leaves out, on average.
        level: of the interval.

    Returns:
        Estimate and interval, clipped to 0 to 1; None with too few cases.
    """
    values = out_of_bag[np.arange(len(chosen)), chosen]
    given = ~np.isnan(values)
    if given.mean() < FEWEST or not 0 < share_out < 1:
        return {"value": None, "interval": None}
    values, picked = values[given], chosen[given]
    shifts = np.array([_mean_shift(out_of_bag[:, k], scores[k]) for k in range(len(scores))])
    estimate = float(values.mean() - shifts[picked].mean())
    spread = (values - values.mean()) * np.sqrt(share_out / (1 - share_out))
    low, high = percentile_interval(estimate + spread, level)
    return {"value": min(max(estimate, 0.0), 1.0), "interval": (max(low, 0.0), min(high, 1.0))}


def _mean_shift(out_of_bag: np.ndarray, score: float) -> float:
    """How much lower a candidate scores on the cases left out than on all, chosen or not."""
    given = out_of_bag[~np.isnan(out_of_bag)]
    return float(given.mean() - score) if len(given) else 0.0


def out_of_bag_counts(counts: np.ndarray) -> np.ndarray:
    """Every case that a resample left out, once: ``(R, N)``."""
    left_out: np.ndarray = (counts == 0).astype(float)
    return left_out


def share_left_out(counts: np.ndarray, units: np.ndarray) -> float:
    """Mean share of the patients (or cases) that the resamples left out."""
    _, first = np.unique(units, return_index=True)
    return float((counts[:, first] == 0).mean())
