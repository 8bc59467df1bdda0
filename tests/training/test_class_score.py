from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from nnunet_3dct.training.class_score import ClassScore, score_cases


def score(macro_f1: float, log_loss: float, n_cases: int = 5) -> ClassScore:
    return ClassScore(macro_f1, 0.5, log_loss, n_cases)


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    table = rng.dirichlet([1, 1, 1], 30)
    truth = rng.integers(0, 3, 30)
    names = [f"case_{n}" for n in range(30)]
    found = score_cases(
        {n: tuple(p) for n, p in zip(names, table, strict=True)},
        dict(zip(names, truth.tolist(), strict=True)),
    )
    assert found.macro_f1 == pytest.approx(f1_score(truth, table.argmax(1), average="macro"))
    assert found.accuracy == pytest.approx(accuracy_score(truth, table.argmax(1)))
    assert found.log_loss == pytest.approx(log_loss(truth, table, labels=[0, 1, 2]))
    assert found.n_cases == 30


def test_mean_is_over_the_classes_that_occur() -> None:
    found = score_cases({"a": (0.9, 0.1, 0), "b": (0.1, 0.2, 0.7)}, {"a": 0, "b": 0})
    assert found.macro_f1 == pytest.approx(2 / 3)


def test_cases_of_unknown_class_do_not_count() -> None:
    found = score_cases({"a": (0.9, 0.1), "b": (0.9, 0.1), "c": (0.9, 0.1)}, {"a": 0, "b": -1})
    assert (found.n_cases, found.accuracy) == (1, 1.0)


def test_certain_and_wrong_stays_finite() -> None:
    assert math.isfinite(score_cases({"a": (1.0, 0.0)}, {"a": 1}).log_loss)


def test_without_known_cases_there_is_no_score_and_nothing_is_better() -> None:
    nothing = score_cases({"a": (0.9, 0.1)}, {"a": -1})
    assert nothing.n_cases == 0 and math.isnan(nothing.macro_f1)
    assert not nothing.better_than(None)
    assert not nothing.better_than(score(0.1, 2.0))


def test_higher_macro_f1_wins_and_log_loss_decides_ties() -> None:
    assert score(0.1, 9.0).better_than(None)
    assert score(0.6, 2.0).better_than(score(0.5, 0.1))
    assert score(0.5, 0.8).better_than(score(0.5, 0.9))
    assert not score(0.5, 0.9).better_than(score(0.5, 0.9))
