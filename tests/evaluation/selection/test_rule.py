"""Which candidate the rule takes."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_3dct.evaluation.selection.rule import choose

NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "dice", "margin", "best", "selected"),
    [
        # three candidates: two single models and their pair
        ([0.60, 0.50, 0.70], [0.80, 0.80, 0.80], 0.2, 2, 0),  # a single model that may be as good, the better one
        ([0.60, 0.50, 0.70], [0.80, 0.80, 0.80], 0.05, 2, 2),  # the pair is shown to be better
        ([0.60, 0.58, 0.59], [0.80, 0.81, 0.81], 0.2, 0, 1),  # the best by class segments worse
        ([0.60, 0.58, 0.59], [0.80, 0.804, 0.805], 0.2, 0, 0),  # not by more than the margin of the Dice
        ([0.60, 0.58, 0.59], [0.80, 0.80, 0.81], 0.2, 0, 2),  # only the pair segments well enough
        ([0.60, 0.30, 0.59], [0.80, 0.90, 0.80], 0.2, 0, 0),  # a better Dice does not make up for the class
        ([0.60, 0.60, 0.60], [0.80, 0.80, 0.80], 0.2, 0, 0),  # at a tie the first
        ([0.50, 0.45, 0.60], [0.80, 0.80, NAN], 0.2, 2, 0),  # a Dice that is not known is no reason
        ([0.30, 0.25, 0.60], [0.80, 0.80, NAN], 0.2, 2, 2),  # unless all the others are worse
    ],
)
def test_rule(scores: list[float], dice: list[float], margin: float, best: int, selected: int) -> None:
    margins = np.full((3, 3), margin)
    np.fill_diagonal(margins, 0)
    choice = choose(np.array([scores]), np.array([dice]), margins, np.array([1, 1, 2]))
    assert (choice.best[0], choice.selected[0]) == (best, selected)


def test_each_resample_is_decided_by_its_own_scores_and_the_margin_of_its_own_best() -> None:
    scores = np.array([[0.6, 0.5], [0.5, 0.6], [0.6, NAN]])
    margins = np.array([[0, 0.05], [0.2, 0]])
    choice = choose(scores, np.full((3, 2), 0.8), margins, np.array([1, 1]))
    assert choice.best.tolist() == [0, 1, 0]
    assert choice.not_worse.tolist() == [[True, False], [True, True], [True, False]]
