"""Folders that mix predictions of several models or settings, and classes without basis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_3dct.cli.evaluate_classification import main
from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.evaluation.classification import evaluate_classification
from tests.evaluation.predictions import strict_json, write_case, write_labels

RUN = {"head_weights": {"0": "aaaa"}, "checkpoint": "checkpoint_final.pth", "folds": [0], "tta": "full", "windows": 4}


def folder(tmp_path: Path, runs: list[dict[str, Any]], manifest: dict[str, Any] | None = None) -> list[str]:
    """Warnings of the evaluation of a folder with one case for each run."""
    predictions = tmp_path / "predictions"
    for n, produced_by in enumerate(runs):
        write_case(predictions, f"case_{n}", probs=[0.6, 0.4], produced_by=produced_by)
    labels = write_labels(tmp_path, {f"case_{n}": n % 2 for n in range(len(runs))})
    if manifest is not None:
        (predictions / "prediction_manifest.json").write_text(json.dumps({"produced_by": manifest}))
    return evaluate_classification(predictions, labels, resamples=0)["warnings"]


def test_one_run_is_not_warned_of_though_its_cases_differ_in_their_windows(tmp_path):
    runs = [{**RUN, "windows": n} for n in range(4)]
    assert folder(tmp_path, runs, {**RUN, "trainer": "nnUNetTrainer_X"}) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"head_weights": {"0": "bbbb"}}, "bbbb"),
        ({"checkpoint": "checkpoint_best.pth"}, "checkpoint_best.pth"),
        ({"folds": [0, 1]}, "[0, 1]"),
        ({"model": "fingerprint"}, "model"),
    ],
)
def test_predictions_of_two_models_are_named(tmp_path, change, word):
    (warning,) = folder(tmp_path, [RUN, RUN, {**RUN, **change}, RUN])
    assert (
        "of 2 models" in warning and "case_2 (" in warning and "case_0, case_1, case_3" in warning and word in warning
    )


def test_fingerprint_of_the_model_decides_where_it_is_stated(tmp_path):
    runs = [{**RUN, "model": "same"}, {**RUN, "model": "same", "trainer": "renamed"}]
    assert folder(tmp_path, runs) == []


def test_settings_of_two_runs_are_named(tmp_path):
    (warning,) = folder(tmp_path, [RUN, {**RUN, "tta": "pair"}])
    assert "of 2 settings" in warning and "case_1 (tta pair)" in warning and "case_0 (tta full)" in warning


def test_cases_that_the_manifest_does_not_describe_are_named(tmp_path):
    warnings = folder(tmp_path, [RUN, {**RUN, "head_weights": {"0": "bbbb"}}], RUN)
    assert any("1 of 2 cases were not predicted by the run" in w and w.endswith(": case_1") for w in warnings)
    other = tmp_path / "other"
    other.mkdir()
    (warning,) = folder(other, [RUN, RUN], {**RUN, "checkpoint": "checkpoint_best.pth"})
    assert "not of the run that prediction_manifest.json describes" in warning


def test_parts_of_a_split_run_are_each_described_by_their_manifest(tmp_path):
    labels = write_labels(tmp_path, {"case_0": 0, "case_1": 1})
    predictions = tmp_path / "predictions"
    for n, device in enumerate(("bf16", "f32")):
        write_case(predictions, f"case_{n}", probs=[0.6, 0.4], produced_by={**RUN, "precision": device})
        manifest = {"produced_by": {**RUN, "precision": device}}
        (predictions / f"prediction_manifest_part{n}of2.json").write_text(json.dumps(manifest))
    (warning,) = evaluate_classification(predictions, labels, resamples=0)["warnings"]
    assert "of 2 settings" in warning and "precision bf16" in warning


@pytest.mark.parametrize(("content", "word"), [("[]", "found list"), ("{", "cannot be read")])
def test_manifest_that_is_none_is_refused(tmp_path, content, word):
    folder(tmp_path, [RUN, RUN])
    (tmp_path / "predictions" / "prediction_manifest.json").write_text(content)
    with pytest.raises(EvaluationError, match=rf"prediction_manifest\.json.*{word}"):
        evaluate_classification(tmp_path / "predictions", tmp_path / "classification.json", resamples=0)


def test_classes_without_basis_are_named_with_the_reason(tmp_path, capsys):
    write_case(tmp_path / "p", "blank", probs=[0.6, 0.4], without_basis="the image is constant")
    write_case(tmp_path / "p", "sound", probs=[0.6, 0.4])
    labels = write_labels(tmp_path, {"blank": 0, "sound": 1})
    main([str(tmp_path / "p"), str(labels), "--bootstrap", "0"])
    warning = "the class of 1 case is without basis: blank (the image is constant)"
    assert strict_json(tmp_path / "p" / "classification_metrics.json")["warnings"] == [warning]
    assert f"warning: {warning}" in capsys.readouterr().out


def test_unusual_cases_are_named_with_how_they_are_and_nothing_is_said_twice(tmp_path, capsys):
    basis = "no voxel of the target was found"
    write_case(tmp_path / "p", "odd", probs=[0.6, 0.4], unusual=["spacing 9 mm", "far off"])
    write_case(tmp_path / "p", "blank", probs=[0.6, 0.4], unusual=[basis], without_basis=basis)
    write_case(tmp_path / "p", "sound", probs=[0.6, 0.4], unusual=[])
    labels = write_labels(tmp_path, {"odd": 0, "blank": 1, "sound": 1})
    main([str(tmp_path / "p"), str(labels), "--bootstrap", "0"])
    warnings = strict_json(tmp_path / "p" / "classification_metrics.json")["warnings"]
    line = "1 case unlike the training cases: odd (spacing 9 mm; far off)"
    assert warnings[:2] == [f"the class of 1 case is without basis: blank ({basis})", line]
    assert f"warning: {line}" in capsys.readouterr().out


def test_files_that_a_failed_case_kept_of_an_earlier_run_are_named(tmp_path):
    assert folder(tmp_path, [RUN] * 3, RUN) == []
    manifest = tmp_path / "predictions" / "prediction_manifest.json"
    manifest.write_text(json.dumps({"produced_by": RUN, "failed": {"case_1": "gone"}, "earlier_files": ["case_1"]}))
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({f"case_{n}": n % 2 for n in range(3)}))
    (warning,) = evaluate_classification(tmp_path / "predictions", labels, resamples=0)["warnings"]
    assert "the last run failed on 1 case" in warning and "case_1" in warning
