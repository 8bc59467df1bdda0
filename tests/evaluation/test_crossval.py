"""One estimate from the validation of all folds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from nnunet_3dct.cli.crossval import main
from nnunet_3dct.evaluation.crossval import cross_validate
from nnunet_3dct.formats.atomic import to_json
from nnunet_3dct.formats.checkpoint import write_checkpoint
from tests import toy
from tests.evaluation import trained_folds as made
from tests.utils import write_volume


@pytest.fixture
def folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return made.write_folds(tmp_path, monkeypatch)


def run(*flags: str) -> None:
    main(["-d", "42", "-np", "2", *flags])


def failure(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(*flags)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_pooled_metrics_are_those_of_all_cases_together(folds, capsys):
    run()
    result = json.loads((folds / "crossval_metrics.json").read_text())
    cases = [case for fold in range(made.FOLDS) for case in made.cases_of(fold)]
    truth = np.array([made.truth_of(case) for case in cases])
    rows = np.stack([made.probabilities_of(case) for case in cases])
    classes = result["classification"]
    assert classes["pooled"]["n_samples"] == made.FOLDS * made.PER_FOLD
    assert classes["pooled"]["f1_macro"] == pytest.approx(sk.f1_score(truth, rows.argmax(1), average="macro"))
    assert classes["pooled"]["auc_macro"] == pytest.approx(sk.roc_auc_score(truth, rows, multi_class="ovr"))
    of_folds = [
        sk.accuracy_score(t, p) for t, p in zip(truth.reshape(3, -1), rows.argmax(1).reshape(3, -1), strict=True)
    ]
    assert [found["accuracy"] for found in classes["per_fold"].values()] == pytest.approx(of_folds)
    assert classes["spread"]["accuracy"]["sd"] == pytest.approx(np.std(of_folds, ddof=1))
    dice = [case["metrics"]["lesion"]["Dice"] for case in result["segmentation"]["metric_per_case"]]
    assert result["segmentation"]["pooled"]["lesion"]["Dice"]["mean"] == pytest.approx(np.mean(dice))
    assert len(dice) == 60 and 0 < np.mean(dice) < 1
    assert result["warnings"] == []
    out = capsys.readouterr().out
    assert "60 cases of 3 folds" in out and f"{classes['pooled']['f1_macro']:.3f}" in out and "high" in out


def test_table_has_a_line_for_each_case(folds):
    run()
    rows = list(csv.DictReader((folds / "crossval_metrics.csv").open()))
    assert len(rows) == 60
    row = next(row for row in rows if row["case"] == "case_105")
    assert (row["fold"], int(row["class"])) == ("1", made.truth_of("case_105"))
    assert float(row["probability_2"]) == pytest.approx(made.probabilities_of("case_105")[2], abs=1e-6)
    assert float(row["Dice_lesion"]) == pytest.approx(1 / 3, abs=1e-6)  # moved by two of its three columns


def test_folds_that_are_missing_are_said(folds, capsys):
    run("-f", "0", "2", "--bootstrap", "0")
    assert "warning: without fold 1: 40 of 60 cases" in capsys.readouterr().out


def test_network_that_has_seen_validation_cases_is_pointed_out(folds, capsys):
    checkpoint = {"network_weights": {}, "mt_started_from": {"path": "stage_1/fold_0/checkpoint_best.pth", "fold": 0}}
    for fold in (0, 1):
        write_checkpoint(checkpoint, folds / f"fold_{fold}" / "checkpoint_final.pth")
    run("--bootstrap", "0")
    warnings = json.loads((folds / "crossval_metrics.json").read_text())["warnings"]
    assert len(warnings) == 1 and "fold 1 started from stage_1/fold_0" in warnings[0]
    assert warnings[0] in capsys.readouterr().out


def test_case_without_prediction_is_named(folds, capsys):
    (folds / "fold_1" / "validation" / "case_103_classification.json").unlink()
    assert "case_103" in failure(capsys)
    assert not (folds / "crossval_metrics.json").exists()


def test_case_without_segmentation_is_named(folds, capsys):
    (folds / "fold_1" / "validation" / "case_103.nii.gz").unlink()
    message = failure(capsys)
    assert "case_103" in message and "a class but no segmentation" in message


def test_files_of_an_earlier_training_with_other_splits_are_left_out_and_named(folds, capsys):
    run("--bootstrap", "0")
    before = json.loads((folds / "crossval_metrics.json").read_text())
    made.write_class_file(folds, 1, "case_007", 1 - made.probabilities_of("case_007"), head_weights={"1": "older"})
    write_volume(folds / "fold_1" / "validation" / "case_007.nii.gz", np.zeros_like(made.volume("case_007")))
    run("--bootstrap", "0")
    after = json.loads((folds / "crossval_metrics.json").read_text())
    (warning,) = after.pop("warnings")
    assert "fold 1" in warning and "left out: case_007" in warning and str(folds / "fold_1" / "validation") in warning
    assert before.pop("warnings") == [] and after == before
    assert f"warning: {warning}" in capsys.readouterr().out


def test_fold_trained_with_other_splits_is_refused_with_what_helps(folds, capsys):
    validation = folds / "fold_1" / "validation"
    for case, other in (("case_103", "case_007"), ("case_104", "case_008")):
        (validation / f"{case}_classification.json").rename(validation / f"{other}_classification.json")
    message = failure(capsys)
    assert "2 are missing: case_103_classification.json, case_104_classification.json" in message
    assert "2 of other cases instead: case_007_classification.json, case_008_classification.json" in message
    assert "restore the splits_final.json of that training, or train the fold again" in message


def test_missing_class_file_without_others_asks_for_the_validation(folds, capsys):
    (folds / "fold_1" / "validation" / "case_103_classification.json").unlink()
    message = failure(capsys)
    assert "1 are missing: case_103_classification.json" in message and "nnUNetv2_train ... --val" in message


def test_predictions_of_two_networks_in_a_fold_are_refused_by_case(folds, capsys):
    made.write_class_file(folds, 1, "case_103", made.probabilities_of("case_103"), head_weights={"1": "other"})
    message = failure(capsys)
    assert "case_103 (other)" in message and "(weights-of-1)" in message


def test_python_gives_what_the_command_writes(folds):
    run("--bootstrap", "20")
    written = json.loads((folds / "crossval_metrics.json").read_text())
    assert json.loads(to_json(cross_validate(folds, resamples=20))) == written
    assert cross_validate(str(folds), folds=[2], resamples=0)["folds"] == {"2": made.cases_of(2)}


def test_class_names_of_another_number_are_refused(folds, capsys):
    assert "class_names: expected 3 names, as many as" in failure(capsys, "--class-names", "a", "b")
    description = json.loads((folds / "dataset.json").read_text())
    (folds / "dataset.json").write_text(json.dumps({**description, "class_names": ["a", "b"]}))
    message = failure(capsys)
    assert "class_names: expected 3 names" in message and "found 2: a, b" in message and "dataset.json" in message


def test_overlapping_folds_are_refused(folds, capsys, tmp_path):
    path = tmp_path / "preprocessed" / made.DATASET / "splits_final.json"
    splits = json.loads(path.read_text())
    splits[1]["val"].append("case_007")
    path.write_text(json.dumps(splits))
    made.write_class_file(folds, 1, "case_007", made.probabilities_of("case_007"))
    assert "Case case_007: expected in the validation of one fold, found it in folds 0 and 1" in failure(capsys)


def test_fold_that_does_not_exist_is_refused(folds, capsys):
    assert "expected 0 to 2" in failure(capsys, "-f", "7")


def test_model_without_validation_is_refused(folds, capsys):
    for path in folds.glob("fold_*/validation/*.json"):
        path.unlink()
    assert "found none. Train a fold to its end" in failure(capsys)


def test_after_a_real_training(nnunet, trained_results, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(trained_results))
    main(["-d", str(toy.DATASET_ID), "-p", toy.PLANS, "-o", str(tmp_path / "out.json"), "--bootstrap", "50"])
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["folds"] == {"0": toy.VALIDATION}
    summary = json.loads(
        (toy.trained_folder(trained_results, toy.FINE_TUNING) / "fold_0/validation/summary.json").read_text()
    )
    for name, label in (("organ", "1"), ("lesion", "2")):
        assert result["segmentation"]["pooled"][name]["Dice"]["mean"] == pytest.approx(summary["mean"][label]["Dice"])
