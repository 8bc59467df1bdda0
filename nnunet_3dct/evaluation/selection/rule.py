"""Which candidate to use, given class scores, Dice and how uncertain differences are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DICE_MARGIN = 0.005
ROUNDING = 1e-12
RULE = (
    "of the candidates whose class score is not shown to be worse than the best one's (corrected interval), those "
    f"whose Dice is at most {DICE_MARGIN} below the best Dice among them; of these a single model before a pair, then "
    "the highest class score"
)


@dataclass(frozen=True)
class Choice:
    """What :func:`choose` decides on each of R resamples with K candidates.

    Attributes:
        best: candidate with the highest class score ``(R,)``, the first at a tie.
        not_worse: whose difference to the best is within the margin ``(R, K)``.
        sufficient: those of them whose Dice is close to the best among them ``(R, K)``.
        selected: the one to use ``(R,)``.
    """

    best: np.ndarray
    not_worse: np.ndarray
    sufficient: np.ndarray
    selected: np.ndarray


def choose(scores: np.ndarray, dice: np.ndarray, margins: np.ndarray, networks: np.ndarray) -> Choice:
    """Apply the rule, see :data:`RULE`.

    A candidate without a Dice is taken only if no other one that is not worse has one.

    Args:
        scores: class scores ``(R, K)``.
        dice: mean foreground Dice ``(R, K)``, NaN where not known.
        margins: half-width of the interval of each difference of class scores ``(K, K)``.
        networks: how many models each candidate is made of ``(K,)``.
    """
    values = np.where(np.isnan(scores), -np.inf, scores)
    best = values.argmax(axis=1)
    gap = values.max(axis=1, keepdims=True) - values
    not_worse = gap <= margins[best] + ROUNDING
    known = np.where(not_worse & ~np.isnan(dice), dice, -np.inf)
    highest = known.max(axis=1, keepdims=True)
    sufficient = not_worse & ((known >= highest - DICE_MARGIN - ROUNDING) | np.isneginf(highest))
    size = np.where(sufficient, networks, networks.max() + 1)
    simplest = size == size.min(axis=1, keepdims=True)
    return Choice(best, not_worse, sufficient, np.where(simplest, values, -np.inf).argmax(axis=1))
