"""Whole-organ overlap against nnU-Net's own evaluation of the same files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_3dct.cli.evaluate_whole_organ import main
from nnunet_3dct.errors import EvaluationError, ImageError
from nnunet_3dct.evaluation.whole_organ import evaluate_whole_organ
from nnunet_3dct.formats.label_volumes import load_label_scheme

LABELS = {"background": 0, "pancreas": 1, "lesion": 2}
SHAPE = (8, 12, 14)
METRICS = {"Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"}


def volume(seed: int, highest: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest + 1, SHAPE).astype(np.uint8)


def write_volume(
    path: Path, labels: np.ndarray, spacing=(0.73, 0.73, 2.0), origin=(-12.5, 30.0, 7.25), direction=None
) -> None:
    path.parent.mkdir(exist_ok=True)
    image = SimpleITK.GetImageFromArray(labels)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(path))


class Dataset:
    """A folder of three references and predictions with its dataset.json."""

    def __init__(self, root: Path, labels: dict | None = None, **extra: object) -> None:
        self.references, self.predictions, self.json = (
            root / "labels",
            root / "predictions",
            root / "dataset.json",
        )
        self.json.write_text(json.dumps({"labels": labels or LABELS, "file_ending": ".nii.gz", **extra}))
        for i in range(3):
            write_volume(self.references / f"case_{i}.nii.gz", volume(i))
            write_volume(self.predictions / f"case_{i}.nii.gz", volume(i + 100))

    def evaluate(self, **options) -> dict:
        return evaluate_whole_organ(self.references, self.predictions, self.json, **options)

    def stock(self, name: str, region: tuple[int, ...], ignore: int | None = None) -> dict:
        files = str(self.references / name), str(self.predictions / name)
        return compute_metrics(*files, SimpleITKIO(), [region], ignore)["metrics"][region]

    def run(self, *arguments: str) -> dict:
        main([str(self.references), str(self.predictions), "-djfile", str(self.json), *arguments])
        return strict_json(self.predictions / "whole_pancreas_summary.json")


def strict_json(path: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


def test_summary_equals_stock_with_one_region_of_all_foreground_labels(dataset, capsys):
    summary = dataset.run("-np", "2")
    expected = [dataset.stock(f"case_{i}.nii.gz", (1, 2)) for i in range(3)]
    assert [case["metrics"]["whole_pancreas"] for case in summary["metric_per_case"]] == expected
    for i, case in enumerate(summary["metric_per_case"]):
        assert case["reference_file"] == str(dataset.references / f"case_{i}.nii.gz")
        assert case["prediction_file"] == str(dataset.predictions / f"case_{i}.nii.gz")
    for mean in (summary["mean"]["whole_pancreas"], summary["foreground_mean"]):
        assert set(mean) == METRICS
        for key in METRICS:
            assert mean[key] == pytest.approx(np.mean([case[key] for case in expected]))
    out, err = capsys.readouterr()
    assert f"{summary['foreground_mean']['Dice']:.4f}" in out and "case_0.nii.gz" in out
    assert not err


def test_dice_is_that_of_the_binary_masks(dataset):
    summary = dataset.evaluate()
    for i, case in enumerate(summary["metric_per_case"]):
        reference, prediction = volume(i) > 0, volume(i + 100) > 0
        expected = 2 * (reference & prediction).sum() / (reference.sum() + prediction.sum())
        assert case["metrics"]["whole_pancreas"]["Dice"] == pytest.approx(expected)


def test_ignored_voxels_of_the_reference_count_nowhere(tmp_path):
    dataset = Dataset(tmp_path, {**LABELS, "ignore": 3})
    write_volume(dataset.references / "case_0.nii.gz", volume(0, highest=3))
    metrics = dataset.evaluate()["metric_per_case"][0]["metrics"]["whole_pancreas"]
    assert metrics == dataset.stock("case_0.nii.gz", (1, 2), ignore=3)
    voxels = sum(metrics[key] for key in ("TP", "FP", "FN", "TN"))
    assert voxels == (volume(0, highest=3) != 3).sum()


def test_regions_count_with_all_their_labels(tmp_path):
    labels = {"background": 0, "pancreas": [1, 2], "lesion": [2], "duct": 3}
    dataset = Dataset(tmp_path, labels, regions_class_order=[1, 2, 3])
    assert load_label_scheme(dataset.json).foreground == (1, 2, 3)
    metrics = dataset.evaluate()["metric_per_case"][1]["metrics"]["whole_pancreas"]
    assert metrics == dataset.stock("case_1.nii.gz", (1, 2, 3))


def test_case_empty_in_both_is_null_counted_and_left_out_of_the_mean(dataset, capsys):
    for folder in (dataset.references, dataset.predictions):
        write_volume(folder / "case_1.nii.gz", np.zeros(SHAPE, np.uint8))
    summary = dataset.run()
    assert summary["metric_per_case"][1]["metrics"]["whole_pancreas"]["Dice"] is None
    assert summary["empty_in_both"]["count"] == 1 and summary["empty_in_both"]["cases"] == ["case_1.nii.gz"]
    others = [dataset.stock(f"case_{i}.nii.gz", (1, 2))["Dice"] for i in (0, 2)]
    assert summary["foreground_mean"]["Dice"] == pytest.approx(np.mean(others))
    assert "empty in both" in capsys.readouterr().out


def test_empty_prediction_of_a_present_organ_has_dice_zero(dataset):
    write_volume(dataset.predictions / "case_1.nii.gz", np.zeros(SHAPE, np.uint8))
    summary = dataset.evaluate()
    assert summary["metric_per_case"][1]["metrics"]["whole_pancreas"]["Dice"] == 0
    assert summary["empty_in_both"]["count"] == 0


def test_only_empty_cases_give_a_null_mean(dataset, recwarn):
    for i in range(3):
        for folder in (dataset.references, dataset.predictions):
            write_volume(folder / f"case_{i}.nii.gz", np.zeros(SHAPE, np.uint8))
    assert dataset.run()["foreground_mean"]["Dice"] is None
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def test_missing_predictions_are_named_unless_chill(dataset, capsys):
    (dataset.predictions / "case_2.nii.gz").unlink()
    with pytest.raises(EvaluationError, match=r"1 of 3 references.*case_2\.nii\.gz.*--chill"):
        dataset.evaluate()
    summary = dataset.run("--chill")
    assert summary["n_cases"] == 2 and summary["missing_predictions"] == ["case_2.nii.gz"]
    assert "case_2.nii.gz" in capsys.readouterr().out


def test_prediction_without_reference_is_named(dataset):
    (dataset.references / "case_2.nii.gz").unlink()
    with pytest.raises(EvaluationError, match=r"1 of 3 predictions have no reference.*case_2\.nii\.gz"):
        dataset.evaluate(chill=True)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"labels": volume(0)[:, :, :-1]}, ["size (x, y, z)", "(14, 12, 8)", "(13, 12, 8)"]),
        ({"spacing": (0.73, 0.73, 2.5)}, ["spacing", "(0.73, 0.73, 2)", "(0.73, 0.73, 2.5)"]),
        ({"origin": (-12.5, 31.0, 7.25)}, ["origin", "(-12.5, 30, 7.25)", "(-12.5, 31, 7.25)"]),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, ["direction", "(1, 0, 0", "(-1, 0, 0"]),
    ],
)
def test_prediction_on_another_grid_is_refused_with_both_values(dataset, changes, parts):
    write_volume(dataset.predictions / "case_1.nii.gz", **{"labels": volume(101), **changes})
    with pytest.raises(EvaluationError) as caught:
        dataset.evaluate()
    for part in ["case_1.nii.gz", *parts]:
        assert part in str(caught.value)


def test_grid_is_compared_when_the_dataset_uses_nibabel(tmp_path):
    dataset = Dataset(tmp_path, overwrite_image_reader_writer="NibabelIO")
    files = (str(folder / "case_0.nii.gz") for folder in (dataset.references, dataset.predictions))
    expected = compute_metrics(*files, NibabelIO(), [(1, 2)])["metrics"][(1, 2)]
    assert dataset.evaluate()["metric_per_case"][0]["metrics"]["whole_pancreas"] == expected
    write_volume(dataset.predictions / "case_0.nii.gz", volume(3), origin=(0.0, 0.0, 0.0))
    with pytest.raises(EvaluationError, match=r"case_0\.nii\.gz: label and prediction differ in origin"):
        dataset.evaluate()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def cut_inside(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))


@pytest.mark.parametrize("damage", [cut, cut_inside, lambda p: p.write_bytes(b""), lambda p: p.write_text("x" * 999)])
@pytest.mark.parametrize(("folder", "case"), [("references", 0), ("predictions", 2)])
def test_unreadable_and_truncated_files_are_named(dataset, damage, folder, case, capfd):
    path = getattr(dataset, folder) / f"case_{case}.nii.gz"
    damage(path)
    with pytest.raises(ImageError) as caught:
        dataset.evaluate()
    assert str(path) in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


def test_values_that_are_no_labels_are_refused(dataset):
    labels = volume(100)
    labels[0, 0, 0] = 7
    write_volume(dataset.predictions / "case_0.nii.gz", labels)
    with pytest.raises(ImageError, match=r"case_0\.nii\.gz.*\[0, 1, 2\].*found also 7\.0"):
        dataset.evaluate()


def test_labels_with_rounding_noise_count_as_labels_and_are_listed(dataset, capsys):
    clean = dataset.run()
    write_volume(dataset.references / "case_0.nii.gz", volume(0).astype(np.float32) * np.float32(1.0000153))
    noisy = dataset.run()
    assert noisy["foreground_mean"] == clean["foreground_mean"]
    assert noisy["rounded_to_whole_labels"] == [str(dataset.references / "case_0.nii.gz")]
    assert "values rounded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "cannot be used"),
        ("[]", "cannot be used"),
        ('{"file_ending": ".nii.gz"}', "expected the key 'labels'"),
        ('{"labels": {"background": 0, "a": 1}}', "expected the key 'file_ending'"),
        ('{"labels": {"0": "background"}, "file_ending": ".nii.gz"}', "the form of nnU-Net v1"),
        ('{"labels": {"background": 0}, "file_ending": ".nii.gz"}', "foreground label"),
    ],
)
def test_unusable_dataset_json_is_named(dataset, content, part):
    dataset.json.write_text(content)
    with pytest.raises(EvaluationError, match=f"dataset.json.*{part}"):
        dataset.evaluate()


def test_missing_or_empty_folders_are_named(dataset, tmp_path):
    with pytest.raises(EvaluationError, match="nowhere does not exist"):
        evaluate_whole_organ(dataset.references, tmp_path / "nowhere", dataset.json)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"empty: expected label volumes \*\.nii\.gz"):
        evaluate_whole_organ(tmp_path / "empty", dataset.predictions, dataset.json)


def test_command_prints_one_error_and_exits_with_two(dataset, capsys):
    (dataset.predictions / "case_2.nii.gz").unlink()
    with pytest.raises(SystemExit) as stopped:
        dataset.run()
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert err.startswith("error: ") and "case_2.nii.gz" in err and not out
    assert not list(dataset.predictions.glob("*.json"))
