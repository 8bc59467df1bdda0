"""Predictions and labels that cannot be evaluated: messages that name case and value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_3dct.cli.evaluate_classification import main
from nnunet_3dct.errors import ClassLabelsError, EvaluationError
from nnunet_3dct.evaluation.classification import evaluate_classification
from tests.evaluation.predictions import (
    NAMES,
    write_case,
    write_labels,
)


def overwrite(**content: object):
    return lambda predictions, labels: write_case(predictions, "case_0002", **content)


def relabel(**changes: object):
    def apply(predictions: Path, labels: Path) -> None:
        labels.write_text(json.dumps(json.loads(labels.read_text()) | changes))

    return apply


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (overwrite(probs=[0.5, 0.1, 0.3]), ["case_0002", "0.9", "sum 1"]),
        (overwrite(probs=[-0.1, 0.6, 0.5]), ["case_0002", "-0.1"]),
        (overwrite(probs=[0.5, float("nan"), 0.5]), ["case_0002", "nan"]),
        (overwrite(probs="high"), ["case_0002", "high"]),
        (overwrite(logits=[[1.0, 2.0, 3.0]]), ["case_0002", "[[1.0, 2.0, 3.0]]"]),
        (overwrite(probs=[0.5, 0.5], num_classes=3), ["case_0002", "3", "2 class values"]),
        (overwrite(probs=[0.5, 0.5]), ["case_0002 has 2", "case_0000 has 3"]),
        (overwrite(pred=3, num_classes=3), ["case_0002", "is 3", "0 to 2"]),
        (overwrite(pred=1.5), ["case_0002", "1.5"]),
        (overwrite(folds=[0]), ["case_0002", "pred, probs or logits", "folds"]),
        (
            lambda folder, labels: (folder / "case_0002_classification.json").write_text('{"pred": '),
            ["case_0002"],
        ),
        (
            lambda folder, labels: (folder / "case_0002_classification.json").write_text("[1]"),
            ["case_0002", "list"],
        ),
        (
            lambda folder, labels: write_case(folder, "stranger", pred=1),
            ["stranger", "not all of the 37", "classification.json"],
        ),
        (
            lambda folder, labels: labels.write_text('{"x_1": 0, "x_2": 1}'),
            ["none of the", "case_0000", "x_1"],
        ),
        (relabel(case_0005=3), ["case_0005", "is 3", "3 classes"]),
        (relabel(train_0000=7), ["train_0000", "is 7", "3 classes"]),
        (relabel(**{f"case_{i:04d}": -1 for i in range(36)}), ["36", "-1 (unknown)"]),
    ],
)
def test_bad_input_is_refused_with_case_and_values(seed_run, damage, parts):
    damage(*seed_run)
    with pytest.raises(EvaluationError) as caught:
        evaluate_classification(*seed_run, resamples=0)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"], ["a", "b", "a"], ["a", "b", "accuracy"]])
def test_class_names_that_do_not_fit_are_refused(seed_run, names):
    with pytest.raises(EvaluationError, match=f"class_names.*{names[-1]}"):
        evaluate_classification(*seed_run, names)


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ("Names,a,b\nc0.nii.gz,0.5,0.4\n", "line 2 .c0.nii.gz.*0.9"),
        ("Names,a,b\nc0,0.5\n", "expected 3 columns, found 2"),
        ("Names,a,b\nc0,x,0.5\n", "line 2.*x"),
        ("Names,a,b\nc0,0.5,0.5\nc0.nii.gz,0.5,0.5\n", "line 3.*more than once"),
        ("case,a,b\nc0,0.5,0.5\n", "header Names.*case,a,b"),
        ("Names,a,b\n", "found none"),
        ("", "empty file"),
    ],
)
def test_bad_probability_tables_are_refused(tmp_path, rows, part):
    (tmp_path / "subtype_probabilities.csv").write_text(rows)
    with pytest.raises(EvaluationError, match=part):
        evaluate_classification(tmp_path, write_labels(tmp_path, {"c0": 0, "c1": 1}))


def test_result_table_with_an_unknown_class_is_refused(tmp_path):
    (tmp_path / "subtype_results.csv").write_text("Names,Subtype\nc0.nii.gz,0\nc1.nii.gz,-1\n")
    with pytest.raises(EvaluationError, match=r"c1.*is -1"):
        evaluate_classification(tmp_path, write_labels(tmp_path, {"c0": 0, "c1": 1}))


def test_folders_without_predictions_are_refused(tmp_path):
    labels = write_labels(tmp_path, {"c0": 0})
    with pytest.raises(EvaluationError, match="does not exist"):
        evaluate_classification(tmp_path / "nowhere", labels)
    with pytest.raises(EvaluationError, match=r"holds no class predictions.*subtype_results\.csv"):
        evaluate_classification(tmp_path, labels)


def test_unusable_labels_file_is_refused(seed_run, tmp_path):
    with pytest.raises(ClassLabelsError):
        evaluate_classification(seed_run[0], tmp_path / "missing.json")


def test_command_prints_one_error_line_and_exits_with_two(seed_run, capsys):
    predictions, labels = seed_run
    write_case(predictions, "stranger", pred=1)
    with pytest.raises(SystemExit) as stopped:
        main([str(predictions), str(labels), "--class-names", *NAMES])
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert err.startswith("error: ") and "stranger" in err and not out
    assert not (predictions / "classification_metrics.json").exists()


def test_output_file_that_cannot_be_written_ends_with_advice(seed_run, capsys):
    predictions, labels = seed_run
    target = predictions / "absent" / "x.json"
    with pytest.raises(SystemExit) as stopped:
        main([str(predictions), str(labels), "-o", str(target)])
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert err.startswith(f"error: {target} cannot be written: ")
    assert err.endswith(". Give another file with -o.\n")
