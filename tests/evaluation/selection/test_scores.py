"""Scores of several candidates on resamples, against scikit-learn on the drawn cases."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from nnunet_3dct.evaluation.bootstrap import draw_counts
from nnunet_3dct.evaluation.selection.scores import ScoredCases, class_scores, mean_dice


def made(number: int = 30, candidates: int = 3, seed: int = 0) -> ScoredCases:
    """Random candidates, the last one without probabilities; a fifth of the cases of unknown class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, number)
    truth[::5] = -1
    probabilities = rng.dirichlet(np.ones(3), (candidates, number))
    probabilities[:, np.arange(number), np.maximum(truth, 0)] += 0.4
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    dice = rng.uniform(size=(candidates, number, 2))
    dice[0, :4, 1] = np.nan
    rows = [*probabilities[:-1], None]
    return ScoredCases(truth, probabilities.argmax(axis=2), rows, dice, 3, np.arange(number))


def drawn_cases(cases: ScoredCases, counts: np.ndarray) -> np.ndarray:
    drawn = np.repeat(np.arange(len(counts)), counts.astype(int))
    return drawn[cases.truth[drawn] >= 0]


@pytest.fixture
def counts() -> np.ndarray:
    """A resample, all cases once, and one that lacks a class."""
    cases = made()
    lacking = np.where(cases.truth == 1, 0.0, 1.0)
    return np.stack([draw_counts(cases.truth, 1, 4)[0], np.ones(30), lacking])


def test_macro_f1_and_balanced_accuracy_are_those_of_scikit_learn_over_the_classes_that_were_drawn(counts):
    cases = made()
    f1 = class_scores(cases, counts, "f1_macro")
    balanced = class_scores(cases, counts, "balanced_accuracy")
    for row, drawn in enumerate(drawn_cases(cases, c) for c in counts):
        truth = cases.truth[drawn]
        for k, predicted in enumerate(cases.predicted[:, drawn]):
            expected = sk.f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
            assert f1[row, k] == pytest.approx(expected)
            expected = sk.recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
            assert balanced[row, k] == pytest.approx(expected)


def test_auc_is_that_of_scikit_learn_and_has_no_value_without_probabilities(counts):
    cases = made()
    auc = class_scores(cases, counts, "auc_macro")
    for row, drawn in enumerate(drawn_cases(cases, c) for c in counts):
        truth = cases.truth[drawn]
        for k, rows in enumerate(cases.probabilities[:-1]):
            areas = [sk.roc_auc_score(truth == label, rows[drawn, label]) for label in np.unique(truth)]
            assert auc[row, k] == pytest.approx(np.mean(areas))
    assert np.isnan(auc[:, -1]).all()


def test_scores_of_nothing_have_no_value():
    cases = made()
    for metric in ("f1_macro", "balanced_accuracy", "auc_macro"):
        assert np.isnan(class_scores(cases, np.zeros((2, 30)), metric)).all()
    assert np.isnan(mean_dice(cases, np.zeros((1, 30)))).all()
    one_class = (cases.truth == 2).astype(float)[None]
    assert np.isnan(class_scores(cases, one_class, "auc_macro")).all()


def test_dice_is_the_mean_over_cases_then_over_labels_without_empty_ones(counts):
    cases = made()
    found = mean_dice(cases, counts)
    for row, count in enumerate(counts):
        drawn = np.repeat(np.arange(30), count.astype(int))
        expected = [np.mean([np.nanmean(dice[drawn, label]) for label in range(2)]) for dice in cases.dice]
        assert found[row] == pytest.approx(expected)
