"""Resamples of cases and patients, and intervals: what they hold, how wide they are."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_3dct.cli.evaluate_classification import main
from nnunet_3dct.evaluation.bootstrap import (
    class_intervals,
    confidence_intervals,
    draw_counts,
    draw_patients,
    draw_units,
    known_interval,
    units_of,
)
from nnunet_3dct.evaluation.classification import evaluate_classification
from nnunet_3dct.evaluation.resampled_metrics import resampled_metrics
from tests.evaluation.predictions import (
    NAMES,
    SEED_CONFUSION,
    expand,
    probabilities_for,
    strict_json,
)


def test_every_number_has_an_interval_that_holds_it(seed_run):
    result = evaluate_classification(*seed_run, NAMES)
    for name in ("accuracy", "cohen_kappa", "matthews_corrcoef", "average_precision_macro", "brier_score", "auc_macro"):
        low, high = result["confidence_intervals"][name]
        assert low < result[name] < high, name
    for name in ("auc_per_class", "f1_per_class", "recall_per_class"):
        for value, (low, high) in zip(result[name], result["confidence_intervals_per_class"][name], strict=True):
            assert low < value < high, name


def test_a_class_without_a_case_has_no_interval():
    truth, predicted = expand([[5, 1, 1], [2, 6, 0], [0, 0, 0]])
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


def test_cases_of_a_patient_are_drawn_together_and_classes_keep_their_number_of_patients():
    groups = {"a0": "A", "a1": "A", "b0": "B", "b1": "B", "b2": "B", "d0": "D"}
    cases = ["a0", "a1", "b0", "b1", "b2", "c", "d0", "e"]
    units = units_of(cases, groups)
    assert units.tolist() == [0, 0, 1, 1, 1, 2, 3, 4]
    truth = np.array([0, 0, 1, 1, 0, 0, 1, -1])  # B has one case of another class
    counts = draw_units(truth, units, 500, 1)
    assert (counts[:, 0] == counts[:, 1]).all() and (counts[:, 2] == counts[:, 4]).all()
    assert (counts[:, 0] + counts[:, 5] == 2).all()  # A and C are of class 0
    assert (counts[:, 2] + counts[:, 6] == 2).all()  # B and D are of class 1
    assert (counts[:, 7] == 1).all()
    assert len(np.unique(counts[:, 0])) == 3


def test_without_patients_cases_are_drawn_as_elsewhere():
    truth, _ = expand(SEED_CONFUSION)
    assert np.array_equal(draw_units(truth, np.arange(36), 20, 7), draw_counts(truth, 20, 7))


def test_patients_are_drawn_whatever_their_class_and_more_resamples_keep_the_first():
    units = np.array([2, 0, 0, 1, 2])
    counts = draw_patients(units, 400)
    assert (counts[:, 0] == counts[:, 4]).all() and (counts[:, 1] == counts[:, 2]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()  # as many patients as there are
    assert counts[:, [0, 1, 3]].mean(axis=0) == pytest.approx(np.ones(3), abs=0.15)
    assert (counts[:, 3] == 0).any()  # a class that only this one has would be missing
    assert np.array_equal(draw_patients(units, 20), counts[:20])


def test_interval_of_what_has_a_value():
    values = np.array([np.nan, *np.arange(101), np.nan])
    assert known_interval(values) == pytest.approx((2.5, 97.5))
    assert known_interval(np.full(3, np.nan)) is None
