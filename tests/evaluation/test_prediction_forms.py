"""Probabilities, logits, classes; JSON and CSV."""

from __future__ import annotations

import csv
import json

import pytest

from nnunet_3dct.cli.evaluate_classification import main
from nnunet_3dct.evaluation.classification import evaluate_classification
from nnunet_3dct.formats.prediction_folders import read_predictions
from tests.evaluation.predictions import (
    NAMES,
    strict_json,
    write_case,
    write_labels,
)


def test_probs_come_before_logits_and_logits_before_pred(tmp_path):
    write_case(tmp_path, "a", probs=[0.1, 0.9], logits=[5.0, 0.0])
    write_case(tmp_path, "b", logits=[1000.0, 998.0])
    write_case(tmp_path, "c", pred=1)
    write_case(tmp_path, "d", probs=[0.6, 0.4], pred=1)
    found, _ = read_predictions(tmp_path)
    assert {case: p.label for case, p in found.items()} == {"a": 1, "b": 0, "c": 1, "d": 1}
    assert found["b"].probabilities == pytest.approx([0.880797, 0.119203], abs=1e-6)
    assert found["c"].probabilities is None


def test_classes_without_probabilities_have_no_auc_and_say_why(tmp_path, capsys):
    for i in range(6):
        write_case(tmp_path / "p", f"c{i}", pred=i % 2)
    labels = write_labels(tmp_path, {f"c{i}": i // 3 for i in range(6)})
    main([str(tmp_path / "p"), str(labels)])
    result = strict_json(tmp_path / "p" / "classification_metrics.json")
    assert result["auc_macro"] is result["auc_weighted"] is result["calibration"] is None
    assert "no probabilities" in result["auc_undefined_reason"]
    assert "no AUC: the predictions hold classes but no probabilities" in capsys.readouterr().out


def test_single_case_without_probabilities_is_named(tmp_path):
    for i in range(5):
        write_case(tmp_path / "p", f"c{i}", probs=[0.3, 0.7])
    write_case(tmp_path / "p", "lonely", pred=1)
    labels = write_labels(tmp_path, {**{f"c{i}": i % 2 for i in range(5)}, "lonely": 0})
    assert "lonely" in evaluate_classification(tmp_path / "p", labels, resamples=0)["auc_undefined_reason"]


def test_csv_files_give_the_same_metrics_as_json(seed_run, tmp_path):
    predictions, labels = seed_run
    from_json = evaluate_classification(predictions, labels, NAMES, resamples=20)
    found, _ = read_predictions(predictions)
    for name, header, row in (
        ("subtype_probabilities.csv", ["Names", *NAMES], lambda p: p.probabilities.tolist()),
        ("subtype_results.csv", ["Names", "Subtype"], lambda p: [p.label]),
    ):
        folder = tmp_path / name.removesuffix(".csv")
        folder.mkdir()
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *([f"{case}.nii.gz", *row(p)] for case, p in found.items())])
        result = evaluate_classification(folder, labels, NAMES, resamples=20)
        assert result["source"] == name
        assert result["f1_macro"] == from_json["f1_macro"]
        assert result["confidence_intervals"]["f1_macro"] == from_json["confidence_intervals"]["f1_macro"]
        assert result["auc_macro"] == (from_json["auc_macro"] if name == "subtype_probabilities.csv" else None)


def test_cases_of_unknown_class_are_left_out_and_listed(seed_run, capsys):
    predictions, labels = seed_run
    labels.write_text(json.dumps(json.loads(labels.read_text()) | {"case_0003": -1}))
    main([str(predictions), str(labels)])
    result = strict_json(predictions / "classification_metrics.json")
    assert result["n_samples"] == 35
    assert result["excluded_unknown_label"] == ["case_0003"]
    assert "case_0003" in capsys.readouterr().out


def test_stated_class_that_is_not_the_most_probable_one_is_warned_of_by_case(tmp_path, capsys):
    write_case(tmp_path / "p", "contrary", probs=[0.6, 0.4], pred=1)
    write_case(tmp_path / "p", "tied", probs=[0.5, 0.5], pred=1)
    write_case(tmp_path / "p", "agreeing", probs=[0.3, 0.7], pred=1)
    write_case(tmp_path / "p", "by_logits", logits=[0.3, 0.7], pred=0)
    write_case(tmp_path / "p", "silent", probs=[0.6, 0.4])
    write_case(tmp_path / "p", "unknown", probs=[0.6, 0.4], pred=1)
    by_case = {"contrary": 1, "tied": 1, "agreeing": 1, "by_logits": 0, "silent": 0, "unknown": -1}
    labels = write_labels(tmp_path, by_case)
    main([str(tmp_path / "p"), str(labels)])
    found = strict_json(tmp_path / "p" / "classification_metrics.json")
    warning = next(w for w in found["warnings"] if "most probable" in w)
    assert "in by_logits, contrary;" in warning
    assert warning in capsys.readouterr().out
    assert found["accuracy"] == 1  # pred counts


def test_agreeing_predictions_are_not_warned_of(seed_run):
    assert not any("most probable" in w for w in evaluate_classification(*seed_run)["warnings"])
