"""Intervals of many differences hold together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import studentized_range

from nnunet_3dct.evaluation.bootstrap import draw_counts
from nnunet_3dct.evaluation.selection.differences import half_widths, small_sample_widening
from nnunet_3dct.evaluation.selection.scores import ScoredCases, class_scores


def test_widths_are_those_of_tukey_and_dunnett_for_independent_normal_scores() -> None:
    resampled = np.random.default_rng(0).normal(size=(20_000, 4))
    found = half_widths(np.zeros(4), resampled, 0)
    assert found.all_pairs[0, 1] == pytest.approx(studentized_range.ppf(0.95, 4, np.inf), rel=0.02)
    assert found.to_reference[1] == pytest.approx(2.349 * np.sqrt(2), rel=0.02)  # Dunnett, three against a control
    assert np.diagonal(found.all_pairs) == pytest.approx(0) and found.to_reference[0] == 0


def test_two_candidates_need_no_correction_and_equal_ones_no_interval() -> None:
    scores = np.random.default_rng(0).normal(size=(20_000, 2))
    plain = np.quantile(np.abs(scores[:, 0] - scores[:, 1]), 0.95)
    assert half_widths(np.zeros(2), scores, 0).all_pairs[0, 1] == pytest.approx(plain)
    twice = half_widths(np.zeros(3), scores[:, [0, 1, 1]], 0).all_pairs
    assert twice[0, 1] == pytest.approx(plain) and twice[1, 2] == 0
    assert not half_widths(np.zeros(2), scores[:, [0, 0]], 0).all_pairs.any()


def test_candidates_that_hardly_differ_have_narrower_intervals() -> None:
    scores = np.random.default_rng(0).normal(size=(2000, 3))
    scores[:, 2] = scores[:, 1] + 0.1 * scores[:, 2]
    widths = half_widths(np.zeros(3), scores, 0).all_pairs
    assert widths[1, 2] < 0.7 * widths[0, 1]


def test_widening_is_that_of_the_variance_of_few_cases() -> None:
    values = np.random.default_rng(0).normal(size=(4000, 9))
    biased, unbiased = (np.sqrt(values.var(axis=1, ddof=ddof).mean()) for ddof in (0, 1))
    assert small_sample_widening(np.array([9, 9, 1])) == pytest.approx(unbiased / biased)
    assert small_sample_widening(np.array([1, 1])) == 1


def test_equally_good_candidates_are_rarely_called_worse_than_the_best() -> None:
    """With plain intervals some of ten equal candidates would nearly always look worse than the best."""
    rng = np.random.default_rng(3)
    truth = np.repeat([0, 1, 2], 20)
    together, one_by_one = [], []
    for _ in range(150):
        predicted = np.where(rng.random((10, 60)) < 0.4, truth, rng.integers(0, 3, (10, 60)))
        cases = ScoredCases(truth, predicted, [None] * 10, np.zeros((10, 60, 1)), 3, np.arange(60))
        scores = class_scores(cases, np.ones((1, 60)), "f1_macro")[0]
        resampled = class_scores(cases, draw_counts(truth, 300, 0), "f1_macro")
        widths = half_widths(scores, resampled, 0, widening=small_sample_widening(np.array([20, 20, 20])))
        gaps = scores.max() - scores
        together.append((gaps > widths.all_pairs[scores.argmax()]).any())
        plain = 1.96 * np.std(resampled - resampled[:, [scores.argmax()]], axis=0)
        one_by_one.append((gaps > plain).any())
    assert np.mean(together) <= 0.08
    assert np.mean(one_by_one) > 0.4
