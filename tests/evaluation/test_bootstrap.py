"""Intervals: resamples, their metrics, their width."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from nnunet_3dct.cli.evaluate_classification import main
from nnunet_3dct.evaluation.bootstrap import class_intervals, confidence_intervals, draw_counts, resampled_metrics
from nnunet_3dct.evaluation.class_metrics import class_metrics
from nnunet_3dct.evaluation.classification import evaluate_classification
from tests.evaluation.predictions import (
    NAMES,
    SEED_CONFUSION,
    expand,
    probabilities_for,
    strict_json,
)


def probabilities_with_ties(predicted: np.ndarray) -> np.ndarray:
    rows = probabilities_for(predicted).round(1) + 1e-3
    return rows / rows.sum(axis=1, keepdims=True)


def test_resampled_metrics_equal_scikit_learn_on_the_same_resample():
    truth, predicted = expand(SEED_CONFUSION)
    rows = probabilities_with_ties(predicted)
    counts = draw_counts(truth, 50, seed=3)
    values = resampled_metrics(counts, truth, predicted, rows)
    for i, count in enumerate(counts.astype(int)):
        drawn = np.repeat(np.arange(len(truth)), count)
        t, p, one_hot = truth[drawn], predicted[drawn], np.eye(3)[truth[drawn]]
        expected = {
            "accuracy": sk.accuracy_score(t, p),
            "balanced_accuracy": sk.balanced_accuracy_score(t, p),
            "cohen_kappa": sk.cohen_kappa_score(t, p),
            "matthews_corrcoef": sk.matthews_corrcoef(t, p),
            "auc_macro": sk.roc_auc_score(t, rows[drawn], multi_class="ovr"),
            "auc_per_class": sk.roc_auc_score(one_hot, rows[drawn], average=None),
            "average_precision_macro": sk.average_precision_score(one_hot, rows[drawn]),
            "average_precision_weighted": sk.average_precision_score(one_hot, rows[drawn], average="weighted"),
            "brier_score": 3 * sk.mean_squared_error(one_hot, rows[drawn]),
            "f1_per_class": sk.f1_score(t, p, average=None, zero_division=0),
            "precision_weighted": sk.precision_score(t, p, average="weighted", zero_division=0),
            "recall_macro": sk.recall_score(t, p, average="macro"),
            "f1_macro": sk.f1_score(t, p, average="macro"),
            "f1_weighted": sk.f1_score(t, p, average="weighted"),
        }
        for name, value in expected.items():
            assert values[name][i] == pytest.approx(value), name


TWO_CLASSES, ONE_CLASS = [[5, 1, 1], [2, 6, 0], [0, 0, 0]], [[3, 0, 2], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("confusion", [SEED_CONFUSION, TWO_CLASSES, ONE_CLASS])
def test_metrics_of_the_unresampled_cases_are_the_point_metrics(confusion):
    truth, predicted = expand(confusion)
    rows = probabilities_with_ties(predicted)
    point = class_metrics(truth, predicted, rows, NAMES)
    found = resampled_metrics(np.ones((1, len(truth))), truth, predicted, rows)
    assert {"auc_macro", "cohen_kappa"} <= set(found) or len(set(truth)) == 1
    for name, values in found.items():
        expected = [np.nan if v is None else v for v in np.atleast_1d(np.array(point[name], dtype=object))]
        assert values[0] == pytest.approx(np.array(expected, dtype=float).squeeze(), nan_ok=True), name


def test_every_number_has_an_interval_that_holds_it(seed_run):
    result = evaluate_classification(*seed_run, NAMES)
    for name in ("accuracy", "cohen_kappa", "matthews_corrcoef", "average_precision_macro", "brier_score", "auc_macro"):
        low, high = result["confidence_intervals"][name]
        assert low < result[name] < high, name
    for name in ("auc_per_class", "f1_per_class", "recall_per_class"):
        for value, (low, high) in zip(result[name], result["confidence_intervals_per_class"][name], strict=True):
            assert low < value < high, name


def test_a_class_without_a_case_has_no_interval():
    truth, predicted = expand(TWO_CLASSES)
    values = resampled_metrics(draw_counts(truth, 20, 0), truth, predicted, probabilities_for(predicted))
    for name, intervals in class_intervals(values).items():
        assert [interval is None for interval in intervals] == [False, False, True], name


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
