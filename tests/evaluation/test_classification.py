"""Class metrics against scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from nnunet_3dct.cli.evaluate_classification import main
from nnunet_3dct.evaluation.class_metrics import class_metrics
from nnunet_3dct.evaluation.classification import evaluate_classification
from nnunet_3dct.evaluation.reliability import calibration_metrics
from tests.evaluation.predictions import (
    NAMES,
    SEED_CONFUSION,
    expand,
    probabilities_for,
    strict_json,
    write_case,
    write_labels,
)


def test_seed_confusion_matrix_gives_the_numbers_of_its_report(seed_run, capsys):
    predictions, labels = seed_run
    main([str(predictions), str(labels), "--class-names", *NAMES])
    result = strict_json(predictions / "classification_metrics.json")
    assert result["confusion_matrix"] == SEED_CONFUSION
    assert result["n_samples"] == 36
    assert round(result["f1_macro"], 4) == 0.5506
    assert round(result["f1_weighted"], 4) == 0.5562
    assert round(result["accuracy"], 4) == round(result["f1_micro"], 4) == 0.5556
    assert [round(v, 2) for v in result["f1_per_class"]] == [0.53, 0.60, 0.52]
    assert [round(v, 2) for v in result["precision_per_class"]] == [0.67, 0.60, 0.47]
    assert [round(v, 2) for v in result["recall_per_class"]] == [0.44, 0.60, 0.58]
    assert 0 <= result["auc_macro"] <= 1
    assert result["n_labels_without_prediction"] == 252
    low, high = result["confidence_intervals"]["f1_macro"]
    assert low < result["f1_macro"] < high
    out, err = capsys.readouterr()
    assert "subtype1" in out and "252" in out and "36 cases are few" in out
    assert not err


def test_all_keys_of_the_seed_report_are_there(seed_run):
    result = evaluate_classification(*seed_run, NAMES, resamples=10)
    expected = {"accuracy", "auc_macro", "auc_weighted", "class_names", "classification_report"}
    expected |= {"confusion_matrix", "n_samples"}
    for metric in ("f1", "precision", "recall"):
        expected |= {f"{metric}_{average}" for average in ("macro", "micro", "weighted", "per_class")}
    assert expected <= set(result)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_point_metrics_equal_scikit_learn(num_classes):
    rng = np.random.default_rng(num_classes)
    truth = np.r_[np.arange(num_classes), rng.integers(0, num_classes, 60)]
    predicted = np.r_[np.arange(num_classes), rng.integers(0, num_classes, 60)]
    rows = probabilities_for(predicted, num_classes)
    names = [f"c{k}" for k in range(num_classes)]
    result = class_metrics(truth, predicted, rows, names)
    for metric, function in (
        ("f1", sk.f1_score),
        ("precision", sk.precision_score),
        ("recall", sk.recall_score),
    ):
        for average in ("macro", "micro", "weighted"):
            assert result[f"{metric}_{average}"] == pytest.approx(function(truth, predicted, average=average))
        assert result[f"{metric}_per_class"] == pytest.approx(function(truth, predicted, average=None))
    assert result["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    score = rows[:, 1] if num_classes == 2 else rows
    for average in ("macro", "weighted"):
        expected = sk.roc_auc_score(truth, score, multi_class="ovr", average=average)
        assert result[f"auc_{average}"] == pytest.approx(expected)
    report = sk.classification_report(truth, predicted, target_names=names, output_dict=True)
    assert result["classification_report"].keys() == report.keys()
    for key, value in report.items():
        assert result["classification_report"][key] == pytest.approx(value)


def test_brier_score_is_the_squared_distance_to_the_one_hot_truth():
    truth, predicted = expand(SEED_CONFUSION)
    rows = probabilities_for(predicted)
    expected = 3 * np.mean([sk.mean_squared_error(np.eye(3)[t], row) for t, row in zip(truth, rows, strict=True)])
    assert calibration_metrics(truth, rows)["brier_score"] == pytest.approx(expected)
    assert calibration_metrics(truth, np.full((36, 3), 1 / 3))["brier_score"] == pytest.approx(2 / 3)


def test_calibration_error_is_the_gap_between_confidence_and_share_of_correct_cases():
    rows = np.array([[0.8, 0.2]] * 10 + [[0.35, 0.65]] * 5)
    truth = np.array([0] * 6 + [1] * 4 + [1] * 4 + [0])
    expected = (10 * abs(0.6 - 0.8) + 5 * abs(0.8 - 0.65)) / 15
    assert calibration_metrics(truth, rows)["expected_calibration_error"] == pytest.approx(expected)
    certain_and_right = np.eye(2)[truth]
    assert calibration_metrics(truth, certain_and_right)["expected_calibration_error"] == 0


def test_class_absent_from_truth_is_undefined_and_listed(tmp_path, capfd):
    truth, predicted = expand([[5, 1, 1], [2, 6, 0], [0, 0, 0]])
    rows = probabilities_for(predicted)
    for i, row in enumerate(rows):
        write_case(tmp_path / "p", f"c{i}", probs=row.tolist())
    labels = write_labels(tmp_path, {f"c{i}": int(t) for i, t in enumerate(truth)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main([str(tmp_path / "p"), str(labels), "--class-names", *NAMES])
    result = strict_json(tmp_path / "p" / "classification_metrics.json")
    assert result["classes_absent_from_truth"] == ["subtype2"]
    assert result["f1_per_class"][2] is result["precision_per_class"][2] is result["recall_per_class"][2] is None
    assert result["classification_report"]["subtype2"]["f1-score"] is None
    present = [sk.roc_auc_score(truth == k, rows[:, k]) for k in (0, 1)]
    assert result["auc_macro"] == pytest.approx(np.mean(present))
    assert result["f1_macro"] == pytest.approx(sk.f1_score(truth, predicted, labels=[0, 1], average="macro"))
    assert result["classification_report"]["macro avg"]["f1-score"] == result["f1_macro"]
    out, err = capfd.readouterr()
    assert "subtype2: no case of this class" in out
    assert not err


def test_one_true_class_leaves_auc_undefined_with_a_reason(tmp_path):
    for i in range(4):
        write_case(tmp_path / "p", f"c{i}", probs=[0.7, 0.3])
    labels = write_labels(tmp_path, {"c0": 0, "c1": 0, "c2": 0, "c3": 0, "other": 1})
    result = evaluate_classification(tmp_path / "p", labels, resamples=10)
    assert result["auc_macro"] is None and "class0" in result["auc_undefined_reason"]
    assert "auc_macro" not in result["confidence_intervals"]
