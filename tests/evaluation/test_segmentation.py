"""Segmentation metrics against nnU-Net's evaluation, DeepMind's surface-distance and SciPy."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import surface_distance
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2
from scipy import ndimage
from scipy.spatial import cKDTree

from nnunet_3dct.cli import evaluate_whole_organ as whole_organ
from nnunet_3dct.cli.evaluate_segmentation import main
from nnunet_3dct.errors import EvaluationError, ImageError, SettingsError
from nnunet_3dct.evaluation.case_segmentation import structure_labels
from nnunet_3dct.evaluation.lesions import detect_lesions
from nnunet_3dct.evaluation.segmentation import evaluate_segmentation
from nnunet_3dct.evaluation.surface import surface_metrics
from nnunet_3dct.formats.metrics_segmentation import WHOLE_ORGAN
from tests.utils import truncate, write_volume

LABELS = {"background": 0, "pancreas": 1, "lesion": 2}
SPACING = (0.73, 0.8, 2.0)  # x, y, z
SHAPE = (16, 30, 34)


def blobs(seed: int, sigma: float = 3.0) -> np.ndarray:
    """Smooth organ (1) with lesions (2)."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), sigma)
    return (noise > 0).astype(np.uint8) + (noise > 1.2 * noise.std())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """References, predictions (the same moved by two voxels, with noise) and dataset.json."""
    for n in range(3):
        reference = blobs(n)
        write_volume(tmp_path / "labels" / f"case_{n}.nii.gz", reference, SPACING)
        prediction = np.roll(reference, 2, axis=2)
        prediction[blobs(50 + n, 1.5) == 2] = 1
        write_volume(tmp_path / "predictions" / f"case_{n}.nii.gz", prediction, SPACING)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS, "file_ending": ".nii.gz"}))
    (tmp_path / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    return tmp_path / "labels", tmp_path / "predictions", tmp_path / "dataset.json"


def masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    return blobs(seed) == 1, np.roll(blobs(seed), 1, axis=1) == 1


def test_dice_and_iou_of_every_label_are_those_of_nnunetv2_evaluate_folder(folders):
    references, predictions, dataset_json = folders
    plans = dataset_json.with_name("plans.json")
    compute_metrics_on_folder2(references, predictions, dataset_json, plans, str(predictions / "summary.json"), 1)
    stock = json.loads((predictions / "summary.json").read_text())
    ours = evaluate_segmentation(*folders)
    for expected, case in zip(stock["metric_per_case"], ours["metric_per_case"], strict=True):
        for name, label in (("pancreas", "1"), ("lesion", "2")):
            for key in ("Dice", "IoU"):
                assert case["metrics"][name][key] == expected["metrics"][label][key]
    for name, label in (("pancreas", "1"), ("lesion", "2")):
        assert ours["structures"][name]["Dice"]["mean"] == pytest.approx(stock["mean"][label]["Dice"])


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.0, 0.73, 0.73), (5.0, 0.8, 0.9)])
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0])
def test_surface_dice_is_that_of_the_published_definition(spacing, tolerance):
    reference, prediction = masks(3)
    distances = surface_distance.compute_surface_distances(reference, prediction, spacing)
    expected = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)
    assert surface_metrics(reference, prediction, spacing, tolerance)[0] == pytest.approx(expected, abs=1e-6)


def test_hausdorff_distance_is_that_between_the_boundary_voxels():
    reference, prediction = masks(4)
    spacing = np.array((2.0, 0.73, 0.8))
    points = []
    for mask in (reference, prediction):
        boundary = mask & ~ndimage.binary_erosion(mask)
        points.append(np.argwhere(boundary) * spacing)
    directed = [np.percentile(cKDTree(b).query(a)[0], 95) for a, b in (points, points[::-1])]
    assert surface_metrics(reference, prediction, spacing, 2.0)[1] == pytest.approx(max(directed), rel=1e-5)


def test_single_slice_is_measured_in_its_plane():
    reference = np.zeros((1, 20, 20), bool)
    reference[0, 5:15, 5:15] = True
    prediction = np.roll(reference, 3, axis=2)
    dice, distance = surface_metrics(reference, prediction, (999.0, 1.0, 0.5), 100.0)
    assert dice == 1 and distance == pytest.approx(1.5)


def test_mask_at_the_border_of_the_volume_has_a_surface_there():
    reference = np.zeros((6, 8, 8), bool)
    reference[:, :4] = True
    distances = surface_distance.compute_surface_distances(reference, ~reference, (1, 1, 1))
    expected = surface_distance.compute_surface_dice_at_tolerance(distances, 1.0)
    assert surface_metrics(reference, ~reference, (1, 1, 1), 1.0)[0] == pytest.approx(expected)


def test_volumes_are_in_ml(folders):
    ours = evaluate_segmentation(*folders)["metric_per_case"][1]["metrics"]["lesion"]
    expected = np.count_nonzero(blobs(1) == 2) * 0.73 * 0.8 * 2.0 / 1000
    assert ours["volume_reference_ml"] == pytest.approx(expected, rel=1e-6)
    error = ours["volume_prediction_ml"] - ours["volume_reference_ml"]
    assert ours["volume_error_ml"] == pytest.approx(error)
    assert ours["volume_error_percent"] == pytest.approx(100 * error / expected, rel=1e-5)


def cubes(*starts: int) -> np.ndarray:
    mask = np.zeros((4, 4, 40), bool)
    for start in starts:
        mask[1:3, 1:3, start : start + 5] = True
    return mask


@pytest.mark.parametrize(
    ("reference", "prediction", "counts"),
    [
        ((2, 12, 22), (2, 13), (3, 2, 1, 2, 0)),  # one missed
        ((2,), (2, 30), (1, 1, 0, 2, 1)),  # one invented
        ((2, 8), (2, 7, 8), (2, 2, 0, 1, 0)),  # two found by one part that joins them
        ((2,), (6,), (1, 1, 0, 1, 0)),  # a fifth covered
        ((), (6,), (0, 0, 0, 1, 1)),
        ((6,), (), (1, 0, 1, 0, 0)),
        ((), (), (0, 0, 0, 0, 0)),
    ],
)
def test_lesions_found_missed_and_false(reference, prediction, counts):
    found = detect_lesions(cubes(*reference), cubes(*prediction), 0.1)
    assert (found.reference, found.found, found.missed, found.predicted, found.false) == counts


def test_lesion_counts_as_found_from_the_overlap_on():
    touching = cubes(2), cubes(6)  # one of five planes
    assert detect_lesions(*touching, 0.2).found == 1
    assert detect_lesions(*touching, 0.21).found == 0


def test_parts_that_touch_by_a_corner_are_one_lesion():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert detect_lesions(mask, mask, 0.1).reference == 1


def test_empty_masks_have_no_metric_by_convention(folders):
    references, predictions, _ = folders
    for n, (reference, prediction) in enumerate(((0, 0), (0, 1), (1, 0))):
        organ = np.minimum(blobs(n), 1)
        for folder, has in ((references, reference), (predictions, prediction)):
            labels = organ.copy()
            labels[4:6, 4:6, 4:6] = 2 if has else 1
            write_volume(folder / f"case_{n}.nii.gz", labels, SPACING)
    found = evaluate_segmentation(*folders)
    per_case = [case["metrics"]["lesion"] for case in found["metric_per_case"]]
    volume = 8 * 0.73 * 0.8 * 2.0 / 1000
    keys = ("Dice", "IoU", "NSD", "HD95", "volume_error_percent")
    assert [[case[key] for key in keys] for case in per_case] == [
        [None, None, None, None, None],
        [0, 0, 0, None, None],
        [0, 0, 0, None, -100],
    ]
    assert [case["volume_error_ml"] for case in per_case] == pytest.approx([0, volume, -volume], rel=1e-6)
    lesion = found["structures"]["lesion"]
    lists = ("empty_in_both", "empty_reference", "empty_prediction")
    assert [lesion[key] for key in lists] == [["case_0"], ["case_1"], ["case_2"]]
    assert (lesion["Dice"]["mean"], lesion["Dice"]["n"]) == (0, 2)
    assert (lesion["HD95"]["mean"], lesion["HD95"]["n"]) == (None, 0)


def test_ignored_voxels_count_nowhere(folders):
    references, predictions, dataset_json = folders
    labels = {**LABELS, "ignore": 3}
    dataset_json.write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    reference = blobs(0)
    reference[:, :, 17:] = 3
    write_volume(references / "case_0.nii.gz", reference, SPACING)
    prediction = np.where(reference == 3, 2, reference).astype(np.uint8)  # wrong only where nobody knows
    write_volume(predictions / "case_0.nii.gz", prediction, SPACING)
    found = evaluate_segmentation(*folders)
    assert "ignore" not in found["structures"]
    for metrics in found["metric_per_case"][0]["metrics"].values():
        assert (metrics["Dice"], metrics["NSD"], metrics["HD95"]) == (1, 1, 0)
        assert metrics["volume_error_ml"] == 0 and metrics["lesions_false"] == 0


def test_regions_are_structures():
    labels = {"background": 0, "organ": [1, 2], "lesion": 2, "ignore": 3}
    assert structure_labels(labels, 3) == {"organ": (1, 2), "lesion": (2,), WHOLE_ORGAN: (1, 2)}


def test_interval_of_a_mean_holds_it_and_is_seeded(folders):
    first, second = (evaluate_segmentation(*folders)["structures"]["lesion"]["Dice"] for _ in range(2))
    low, high = first["mean_interval"]
    assert low < first["mean"] < high and first == second


def test_command_writes_json_and_csv_and_prints_a_table(folders, capsys):
    references, predictions, dataset_json = folders
    main([str(references), str(predictions), "-djfile", str(dataset_json), "-np", "2"])
    out = capsys.readouterr().out
    assert "3 cases" in out and "NSD 2 mm" in out and "whole_organ" in out
    assert all(ord(letter) < 128 for letter in out)  # no ruling and no colour in a pipe
    result = json.loads((predictions / "segmentation_metrics.json").read_text())
    rows = list(csv.DictReader((predictions / "segmentation_metrics.csv").open()))
    assert len(rows) == 9
    first = result["metric_per_case"][0]["metrics"]["pancreas"]
    assert rows[0]["case"] == "case_0" and float(rows[0]["HD95"]) == pytest.approx(first["HD95"], rel=1e-5)


def test_json_flag_prints_the_file(folders, capsys):
    references, predictions, dataset_json = folders
    main([str(references), str(predictions), "-djfile", str(dataset_json), "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads((predictions / "segmentation_metrics.json").read_text())


def test_two_folders_are_compared(folders, capsys, tmp_path):
    references, predictions, dataset_json = folders
    main([str(references), str(predictions), "-djfile", str(dataset_json), "--compare", str(references)])
    found = json.loads((predictions / "segmentation_metrics.json").read_text())
    dice = found["comparison"]["structures"]["lesion"]["Dice"]
    assert dice["second"] == 1 and dice["first"] == found["structures"]["lesion"]["Dice"]["mean"]
    assert f"{dice['difference']:+.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tolerance": -1.0}, "tolerance: expected mm, at least 0, found -1.0"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"lesion_overlap": 0.0}, "lesion_overlap: expected a share above 0"),
        ({"num_processes": 0}, "num_processes: expected at least 1"),
    ],
)
def test_setting_out_of_range_is_refused(folders, options, words):
    with pytest.raises(SettingsError, match=words):
        evaluate_segmentation(*folders, **options)


def test_prediction_on_another_grid_is_named_with_both_values(folders):
    write_volume(folders[1] / "case_1.nii.gz", blobs(1), (0.73, 0.8, 2.5))
    with pytest.raises(EvaluationError, match=r"case_1.*spacing.*0\.73, 0\.8, 2\).*0\.73, 0\.8, 2\.5\)"):
        evaluate_segmentation(*folders)


def test_case_without_partner_is_named(folders):
    (folders[0] / "case_2.nii.gz").unlink()
    with pytest.raises(EvaluationError, match=r"have no reference.*case_2"):
        evaluate_segmentation(*folders)


@pytest.mark.parametrize("folder", [0, 1])
def test_the_same_volume_in_two_formats_is_refused_and_both_are_named(folders, folder, capsys):
    references, predictions, dataset_json = folders
    write_volume(folders[folder] / "case_1.nii", np.zeros(SHAPE, np.uint8), SPACING)  # ITK would open this one
    with pytest.raises(EvaluationError, match=rf"{folders[folder]}: .*case_1\.nii and case_1\.nii\.gz"):
        evaluate_segmentation(*folders)
    for command in (main, whole_organ.main):
        with pytest.raises(SystemExit) as stopped:
            command([str(references), str(predictions), "-djfile", str(dataset_json)])
        assert stopped.value.code == 2 and "case_1.nii and case_1.nii.gz" in capsys.readouterr().err


def test_hidden_files_are_no_cases(folders):
    expected = evaluate_segmentation(*folders)
    for folder in folders[:2]:
        (folder / "._case_0.nii.gz").write_bytes(b"Mac OS X")
    assert evaluate_segmentation(*folders) == expected


def test_cases_asked_for_are_compared_alone(folders):
    write_volume(folders[1] / "case_2.nii.gz", blobs(2)[:-1], SPACING)  # would not fit its reference
    found = evaluate_segmentation(*folders, cases={"case_0", "case_1"})
    assert [case["case"] for case in found["metric_per_case"]] == ["case_0", "case_1"]


def test_filters_of_warnings_are_what_they_were(folders):
    before = list(warnings.filters)
    evaluate_segmentation(*folders, num_processes=2)
    assert warnings.filters == before


def test_truncated_file_is_refused_and_nothing_is_written(folders, capsys):
    references, predictions, dataset_json = folders
    truncate(predictions / "case_0.nii.gz", 0.5)
    with pytest.raises(ImageError, match="case_0"):
        evaluate_segmentation(*folders)
    with pytest.raises(SystemExit) as caught:
        main([str(references), str(predictions), "-djfile", str(dataset_json)])
    assert caught.value.code == 2 and "error: " in capsys.readouterr().err
    assert not (predictions / "segmentation_metrics.json").exists()
