"""Two prediction folders on the same cases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, wilcoxon

from nnunet_3dct.cli.evaluate_classification import main
from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.evaluation.comparison import compare, compare_classifications, compare_segmentations
from nnunet_3dct.evaluation.segmentation import evaluate_segmentation
from tests.evaluation.predictions import NAMES, strict_json, write_case, write_labels
from tests.utils import write_volume


@pytest.fixture
def other_run(seed_run: tuple[Path, Path]) -> Path:
    """A second model: right where the first is wrong in six cases, wrong where it is right in two."""
    predictions, labels = seed_run
    folder = predictions.parent / "other"
    shutil.copytree(predictions, folder)
    truth = json.loads(labels.read_text())
    mended, broken = 6, 2
    for path in sorted(folder.iterdir()):
        case = path.name.removesuffix("_classification.json")
        right = json.loads(path.read_text())["pred"] == truth[case]
        if (right and broken) or (not right and mended):
            broken, mended = broken - right, mended - (not right)
            label = (truth[case] + right) % 3
            write_case(folder, case, probs=np.eye(3)[label].tolist(), pred=label)
    return folder


def test_mcnemar_and_difference_of_accuracy(seed_run, other_run):
    found = compare_classifications(seed_run[0], other_run, seed_run[1], NAMES)
    test = found["mcnemar"]
    assert (test["only_first_correct"], test["only_second_correct"]) == (2, 6)
    assert test["p_value"] == pytest.approx(binomtest(2, 8).pvalue)
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(-4 / 36)
    low, high = accuracy["interval"]
    assert low < -4 / 36 < high


def test_paired_interval_is_narrower_than_that_of_independent_cases(seed_run, other_run):
    low, high = compare_classifications(seed_run[0], other_run, seed_run[1])["metrics"]["accuracy"]["interval"]
    independent = 2 * 1.96 * np.sqrt(20 / 36 * 16 / 36 / 36 + 24 / 36 * 12 / 36 / 36)
    assert high - low < 0.75 * independent


def test_a_folder_beside_itself_differs_in_nothing(seed_run):
    found = compare_classifications(seed_run[0], seed_run[0], seed_run[1])
    assert found["mcnemar"]["p_value"] == 1
    for metric in found["metrics"].values():
        assert metric["difference"] == 0 and metric["interval"] == (0, 0)


def test_order_of_files_does_not_matter(seed_run, other_run):
    table = other_run.parent / "table"
    table.mkdir()
    rows = {p.name.removesuffix("_classification.json"): json.loads(p.read_text()) for p in other_run.iterdir()}
    lines = [f"{case},{','.join(map(str, row['probs']))}" for case, row in sorted(rows.items(), reverse=True)]
    (table / "subtype_probabilities.csv").write_text("\n".join(["Names,a,b,c", *lines]) + "\n")
    found, expected = (compare_classifications(seed_run[0], f, seed_run[1]) for f in (table, other_run))
    assert found["mcnemar"] == expected["mcnemar"]


def test_cases_of_one_folder_alone_are_refused_by_name(seed_run, other_run):
    (other_run / "case_0003_classification.json").unlink()
    with pytest.raises(EvaluationError, match=r"same cases.*1 in .*predictions.*case_0003"):
        compare_classifications(seed_run[0], other_run, seed_run[1])
    with pytest.raises(EvaluationError, match=r"1 in .*predictions.*case_0003"):
        compare_classifications(other_run, seed_run[0], seed_run[1])


def test_other_numbers_of_classes_are_refused(seed_run, other_run):
    for path in other_run.iterdir():
        write_case(other_run, path.name.removesuffix("_classification.json"), probs=[0.1, 0.2, 0.3, 0.4])
    with pytest.raises(EvaluationError, match=r"same classes.*3 in .*predictions.*4 in .*other"):
        compare_classifications(seed_run[0], other_run, seed_run[1])


def test_command_writes_and_prints_the_comparison(seed_run, other_run, capsys):
    predictions, labels = seed_run
    main([str(predictions), str(labels), "--compare", str(other_run)])
    result = strict_json(predictions / "classification_metrics.json")["comparison"]
    out = capsys.readouterr().out
    assert f"p = {result['mcnemar']['p_value']:.3g}" in out and "-0.111" in out
    main([str(predictions), str(labels), "--json"])
    assert json.loads(capsys.readouterr().out)["n_samples"] == 36


def segmentation(dice: list[float | None]) -> dict:
    cases = [{"case": f"c{i}", "metrics": {"lesion": {"Dice": value}}} for i, value in enumerate(dice)]
    return {"structures": {"lesion": {}}, "metric_per_case": cases}


def test_dice_of_two_folders_is_compared_case_by_case():
    first, second = [0.8, 0.9, 0.7, None, 0.6, 0.85], [0.7, 0.85, 0.72, 0.5, 0.5, 0.8]
    found = compare_segmentations(segmentation(first), segmentation(second), "first", "second")["structures"]["lesion"]
    pairs = np.array([(a, b) for a, b in zip(first, second, strict=True) if a is not None])
    assert found["Dice"]["difference"] == pytest.approx((pairs[:, 0] - pairs[:, 1]).mean())
    assert found["Dice"]["wilcoxon_p_value"] == pytest.approx(wilcoxon(*pairs.T).pvalue)
    assert (found["n"], found["without_dice"]) == (5, ["c3"])
    low, high = found["Dice"]["interval"]
    assert low < found["Dice"]["difference"] < high


def test_dice_that_differs_nowhere_has_no_p_value():
    found = compare_segmentations(segmentation([0.5, 0.6]), segmentation([0.5, 0.6]), "first", "second")["structures"][
        "lesion"
    ]
    assert found["Dice"]["difference"] == 0 and found["Dice"]["wilcoxon_p_value"] is None
    none = compare_segmentations(segmentation([None]), segmentation([0.5]), "first", "second")["structures"]["lesion"]
    assert none["Dice"] is None and none["without_dice"] == ["c0"]


def test_segmentations_of_other_cases_are_refused():
    with pytest.raises(EvaluationError, match=r"same cases.*c1"):
        compare_segmentations(segmentation([0.5, 0.6]), segmentation([0.5]), "first", "second")


@pytest.fixture
def both_tasks(tmp_path: Path) -> Path:
    """Labels and two prediction folders with segmentations and classes of four cases."""
    for n in range(4):
        volume = np.zeros((6, 12, 12), np.uint8)
        volume[1:5, 2:9, 2:9] = 1
        write_volume(tmp_path / "labels" / f"c{n}.nii.gz", volume)
        for folder, shift in (("one", n % 2), ("other", 2)):
            write_volume(tmp_path / folder / f"c{n}.nii.gz", np.roll(volume, shift, axis=2))
            write_case(tmp_path / folder, f"c{n}", probs=[0.7, 0.3] if (n + shift) % 2 else [0.2, 0.8])
    description = json.dumps({"labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"})
    (tmp_path / "one" / "dataset.json").write_text(description)
    write_labels(tmp_path, {f"c{n}": n % 2 for n in range(4)})
    return tmp_path


def test_one_call_compares_both_tasks(both_tasks):
    folders = both_tasks / "one", both_tasks / "other"
    classes = both_tasks / "classification.json"
    found = compare(*folders, references=both_tasks / "labels", classes=classes, resamples=50)
    one, other = (evaluate_segmentation(both_tasks / "labels", f, folders[0] / "dataset.json") for f in folders)
    dice = found["segmentation"]["structures"]["organ"]["Dice"]
    assert dice["first"] == one["structures"]["organ"]["Dice"]["mean"] > dice["second"]
    assert found["segmentation"] == compare_segmentations(one, other, *folders, resamples=50)
    assert found["classification"] == compare_classifications(*folders, classes, resamples=50)
    assert (found["segmentation"]["first"], found["segmentation"]["second"]) == tuple(map(str, folders))


def test_what_is_not_asked_for_is_not_compared(both_tasks):
    folders = str(both_tasks / "one"), str(both_tasks / "other")
    found = compare(*folders, classes=str(both_tasks / "classification.json"), resamples=0)
    assert found["segmentation"] is None and found["classification"]["metrics"]["accuracy"]["interval"] is None
    assert compare(*folders, references=both_tasks / "labels", resamples=0)["classification"] is None
    with pytest.raises(ValueError, match="expected references, classes or both, found neither"):
        compare(*folders)
