"""Class metrics against scikit-learn, and the messages for input that cannot be evaluated."""

from __future__ import annotations

import csv
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from nnunet_3dct.cli.evaluate_classification import main
from nnunet_3dct.errors import ClassLabelsError, EvaluationError
from nnunet_3dct.evaluation.bootstrap import confidence_intervals, draw_counts, resampled_metrics
from nnunet_3dct.evaluation.class_predictions import read_predictions
from nnunet_3dct.evaluation.classification import calibration, class_metrics, evaluate_classification

SEED_CONFUSION = [[4, 1, 4], [2, 9, 4], [0, 5, 7]]
NAMES = ["subtype0", "subtype1", "subtype2"]


def expand(confusion: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of the cases counted in ``confusion`` (rows truth)."""
    cells = [(t, p) for t, row in enumerate(confusion) for p, count in enumerate(row) for _ in range(count)]
    truth, predicted = np.array(cells).T
    return truth, predicted


def probabilities_for(predicted: np.ndarray, num_classes: int = 3, seed: int = 0) -> np.ndarray:
    """Random probabilities whose most probable class is ``predicted``."""
    rows = np.random.default_rng(seed).dirichlet(np.ones(num_classes), len(predicted))
    for row, label in zip(rows, predicted, strict=True):
        best = row.argmax()
        row[[label, best]] = row[[best, label]]
    return rows


def write_case(folder: Path, case: str, **content: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{case}_classification.json").write_text(json.dumps(content))


def write_labels(folder: Path, labels: dict[str, object]) -> Path:
    path = folder / "classification.json"
    path.write_text(json.dumps(labels))
    return path


@pytest.fixture
def seed_run(tmp_path: Path) -> tuple[Path, Path]:
    """The 36 validation cases of the seed's report; the labels file holds 252 training cases too."""
    truth, predicted = expand(SEED_CONFUSION)
    rows = probabilities_for(predicted)
    for i, (label, row) in enumerate(zip(predicted, rows, strict=True)):
        write_case(
            tmp_path / "predictions",
            f"case_{i:04d}",
            logits=np.log(row).tolist(),
            probs=row.tolist(),
            pred=int(label),
            num_classes=3,
            folds=[0],
        )
    labels: dict[str, object] = {f"case_{i:04d}": int(label) for i, label in enumerate(truth)}
    labels |= {f"train_{i:04d}": str(i % 3) for i in range(252)}
    return tmp_path / "predictions", write_labels(tmp_path, labels)


def strict_json(path: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


# the numbers


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
    assert calibration(truth, rows)["brier_score"] == pytest.approx(expected)
    assert calibration(truth, np.full((36, 3), 1 / 3))["brier_score"] == pytest.approx(2 / 3)


def test_calibration_error_is_the_gap_between_confidence_and_share_of_correct_cases():
    rows = np.array([[0.8, 0.2]] * 10 + [[0.35, 0.65]] * 5)
    truth = np.array([0] * 6 + [1] * 4 + [1] * 4 + [0])
    expected = (10 * abs(0.6 - 0.8) + 5 * abs(0.8 - 0.65)) / 15
    assert calibration(truth, rows)["expected_calibration_error"] == pytest.approx(expected)
    certain_and_right = np.eye(2)[truth]
    assert calibration(truth, certain_and_right)["expected_calibration_error"] == 0


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


# the bootstrap


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


# the forms of a prediction


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


# input that cannot be evaluated


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
    with pytest.raises(EvaluationError, match=f"--class-names.*{names[-1]}"):
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


def test_command_prints_one_error_line_and_exits_with_one(seed_run, capsys):
    predictions, labels = seed_run
    write_case(predictions, "stranger", pred=1)
    with pytest.raises(SystemExit) as stopped:
        main([str(predictions), str(labels), "--class-names", *NAMES])
    out, err = capsys.readouterr()
    assert stopped.value.code == 1
    assert err.startswith("error: ") and "stranger" in err and not out
    assert not (predictions / "classification_metrics.json").exists()


def test_output_file_that_cannot_be_written_ends_with_advice(seed_run, capsys):
    predictions, labels = seed_run
    target = predictions / "absent" / "x.json"
    with pytest.raises(SystemExit) as stopped:
        main([str(predictions), str(labels), "-o", str(target)])
    err = capsys.readouterr().err
    assert stopped.value.code == 1
    assert err.startswith(f"error: {target} cannot be written: ")
    assert err.endswith(". Give another file with -o.\n")
