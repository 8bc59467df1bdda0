"""Intervals: resamples, their metrics, their width."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from nnunet_3dct.cli.evaluate_classification import main
from nnunet_3dct.evaluation.bootstrap import confidence_intervals, draw_counts, resampled_metrics
from nnunet_3dct.evaluation.classification import class_metrics
from tests.evaluation.predictions import (
    NAMES,
    SEED_CONFUSION,
    expand,
    probabilities_for,
    strict_json,
)


def test_resampled_metrics_equal_scikit_learn_on_the_same_resample():
    truth, predicted = expand(SEED_CONFUSION)
    rows = probabilities_for(predicted).round(1) + 1e-3  # rounding makes ties
    rows /= rows.sum(axis=1, keepdims=True)
    counts = draw_counts(truth, 50, seed=3)
    values = resampled_metrics(counts, truth, predicted, rows)
    for i, count in enumerate(counts.astype(int)):
        drawn = np.repeat(np.arange(len(truth)), count)
        t, p = truth[drawn], predicted[drawn]
        assert values["accuracy"][i] == pytest.approx(sk.accuracy_score(t, p))
        assert values["balanced_accuracy"][i] == pytest.approx(sk.balanced_accuracy_score(t, p))
        assert values["f1_macro"][i] == pytest.approx(sk.f1_score(t, p, average="macro"))
        assert values["f1_weighted"][i] == pytest.approx(sk.f1_score(t, p, average="weighted"))
        assert values["auc_macro"][i] == pytest.approx(sk.roc_auc_score(t, rows[drawn], multi_class="ovr"))


def test_metrics_of_the_unresampled_cases_are_the_point_metrics(seed_run):
    truth, predicted = expand(SEED_CONFUSION)
    rows = probabilities_for(predicted)
    point = class_metrics(truth, predicted, rows, NAMES)
    for name, value in resampled_metrics(np.ones((1, 36)), truth, predicted, rows).items():
        assert value[0] == pytest.approx(point[name])


def test_resamples_keep_the_class_sizes_and_depend_on_the_seed_only():
    truth, _ = expand(SEED_CONFUSION)
    counts = draw_counts(truth, 200, seed=1)
    for label, size in enumerate((9, 15, 12)):
        assert (counts[:, truth == label].sum(axis=1) == size).all()
    assert (counts == draw_counts(truth, 200, seed=1)).all()
    assert (counts != draw_counts(truth, 200, seed=2)).any()
    assert counts.mean(axis=0) == pytest.approx(np.ones(36), abs=0.35)


def test_interval_width_agrees_with_the_binomial_standard_error():
    truth = np.repeat([0, 1], 500)
    predicted = np.where(np.tile(np.arange(500) < 400, 2), truth, 1 - truth)  # 80 % right in both classes
    low, high = confidence_intervals(truth, predicted, None)["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 1000), rel=0.1)


def test_bootstrap_zero_gives_no_intervals(seed_run, capsys):
    predictions, labels = seed_run
    main([str(predictions), str(labels), "--bootstrap", "0", "-o", str(predictions.parent / "out.json")])
    assert strict_json(predictions.parent / "out.json")["confidence_intervals"] is None
    assert not (predictions / "classification_metrics.json").exists()
    assert "95 %" not in capsys.readouterr().out
