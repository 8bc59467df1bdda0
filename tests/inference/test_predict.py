"""``nnUNet3DCT_predict`` on sound input: the same segmentation as stock nnU-Net, and the class beside it."""

from __future__ import annotations

import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

import nnunet_3dct
from nnunet_3dct.inference.model import TrainedModel
from nnunet_3dct.inference.options import PredictionOptions
from tests import toy
from tests.inference.predicting import reports, run

CASES = ["new_000", "new_001", "new_002"]


def read(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def add_fold(model: Path, fold: int, seed: int = 0) -> None:
    """Copy fold 0 with other weights in network and head."""
    generator = torch.Generator().manual_seed(seed)
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=True)
    for part in ("network_weights", "cls_head_state"):
        for value in checkpoint[part].values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    (model / f"fold_{fold}").mkdir()
    torch.save(checkpoint, model / f"fold_{fold}" / "checkpoint_final.pth")


def stock_prediction(model: Path, images: Path, output: Path, folds: tuple[int, ...], mirror: bool = True) -> None:
    """Segmentations and probabilities by nnU-Net itself, which ignores the head."""
    predictor = nnUNetPredictor(
        use_mirroring=mirror, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(model), folds, "checkpoint_final.pth")
    output.mkdir()
    predictor.predict_from_files_sequential(str(images), str(output), save_probabilities=True)


def assert_same_segmentations(found: Path, expected: Path) -> None:
    for case in CASES:
        first, second = (SimpleITK.ReadImage(str(folder / f"{case}.nii.gz")) for folder in (found, expected))
        assert np.array_equal(SimpleITK.GetArrayFromImage(first), SimpleITK.GetArrayFromImage(second))
        assert (first.GetSpacing(), first.GetOrigin(), first.GetDirection()) == (
            second.GetSpacing(),
            second.GetOrigin(),
            second.GetDirection(),
        )
        arrays = [np.load(folder / f"{case}.npz")["probabilities"] for folder in (found, expected)]
        assert np.array_equal(*arrays)
        assert len(np.unique(arrays[0].argmax(0))) > 1  # else the comparison would say little


@pytest.mark.parametrize("flags", [(), ("--disable_tta",)], ids=["mirrors", "no mirrors"])
def test_segmentation_and_probabilities_are_those_of_stock_nnunet(
    flags: tuple[str, ...], model: Path, images: Path, tmp_path: Path
) -> None:
    run(images, tmp_path / "ours", "--save_probabilities", *flags)
    stock_prediction(model, images, tmp_path / "stock", (0,), mirror=not flags)
    assert_same_segmentations(tmp_path / "ours", tmp_path / "stock")


def test_two_folds_are_averaged(model: Path, images: Path, tmp_path: Path) -> None:
    add_fold(model, 1)
    run(images, tmp_path / "ours", "--save_probabilities")
    stock_prediction(model, images, tmp_path / "stock", (0, 1))
    assert_same_segmentations(tmp_path / "ours", tmp_path / "stock")
    for fold in ("0", "1"):
        run(images, tmp_path / fold, "-f", fold)
    both, first, second = (reports(tmp_path / name) for name in ("ours", "0", "1"))
    for case in CASES:
        assert first[case]["probs"] != second[case]["probs"]
        np.testing.assert_allclose(both[case]["probs"], np.mean([first[case]["probs"], second[case]["probs"]], 0))
        assert both[case]["produced_by"]["folds"] == [0, 1]
        assert both[case]["produced_by"]["folds_averaged"] == 2


def test_class_is_the_mean_over_mirrors_and_target_weighted_windows(model: Path, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out")
    predictor = TrainedModel(model, [0], options=PredictionOptions(device="cpu", backend="torch"))
    network = predictor.backends[0].network
    for case, report in reports(tmp_path / "out").items():
        preprocessor = predictor.configuration_manager.preprocessor_class()
        files = [str(images / f"{case}_0000.nii.gz")]
        data, *_ = preprocessor.run_case(
            files, None, predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
        )
        x = torch.from_numpy(data)[None].float()
        total, weights = torch.zeros(3), 0.0
        for y0, x0 in itertools.product((0, 8), (0, 8)):  # 16-voxel windows over 24 voxels, step 8
            probs, voxels = torch.zeros(3), 0.0
            for axes in itertools.chain.from_iterable(itertools.combinations((2, 3, 4), n) for n in range(4)):
                window = torch.flip(x[..., y0 : y0 + 16, x0 : x0 + 16], axes)
                with torch.no_grad():
                    segmentation, class_logits = network(window, return_cls=True)
                probs += class_logits[0].softmax(0) / 8
                voxels += float((segmentation.argmax(1) > 0).sum()) / 8
            total += voxels * probs
            weights += voxels
        assert weights > 0 and report["produced_by"]["windows_weighted_by_target"]
        np.testing.assert_allclose(report["probs"], total / weights, atol=1e-5)


def test_prediction_folder_holds_what_is_promised(model: Path, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out", "-co", str(tmp_path / "classes"))
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [
        "dataset.json",
        "measurements.csv",
        *(f"{case}{ending}" for case in CASES for ending in (".nii.gz", "_measurements.json")),
        "plans.json",
        "prediction_manifest.json",
    ]
    found = reports(tmp_path / "classes")
    assert list(found) == CASES
    for case, report in found.items():
        assert {
            "logits",
            "probs",
            "pred",
            "num_classes",
            "class_names",
            "produced_by",
            "target_voxels",
        } == set(report)
        assert sum(report["probs"]) == pytest.approx(1)
        assert torch.tensor(report["logits"]).softmax(0).tolist() == pytest.approx(report["probs"], abs=1e-6)
        assert report["pred"] == int(np.argmax(report["probs"]))
        assert report["target_voxels"] == int((read(tmp_path / "out" / f"{case}.nii.gz") > 0).sum())
        produced_by = report["produced_by"]
        assert (produced_by["windows"], produced_by["passes_per_window"]) == (4, 8)
        assert (produced_by["trainer"], produced_by["checkpoint"]) == (
            toy.FINE_TUNING,
            "checkpoint_final.pth",
        )
        assert (produced_by["folds"], produced_by["mirror_axes"], produced_by["step_size"]) == (
            [0],
            [0, 1, 2],
            0.5,
        )
    assert read_rows(tmp_path / "classes" / "subtype_results.csv") == [
        ["Names", "Subtype"],
        *([f"{case}.nii.gz", str(report["pred"])] for case, report in found.items()),
    ]
    header, *rows = read_rows(tmp_path / "classes" / "subtype_probabilities.csv")
    assert header == ["Names", *toy.CLASS_NAMES]
    for row, (case, report) in zip(rows, found.items(), strict=True):
        assert row[0] == f"{case}.nii.gz"
        assert [float(p) for p in row[1:]] == pytest.approx(report["probs"], abs=1e-6)
    manifest = json.loads((tmp_path / "out" / "prediction_manifest.json").read_text())
    assert (manifest["cases"], manifest["failed"], manifest["device"]) == (CASES, {}, "cpu")
    assert {"nnunet_3dct", "nnunetv2", "torch", "python"} <= set(manifest["versions"])
    assert list(manifest["seconds"]["per_case"]) == CASES
    assert (manifest["head"]["name"], manifest["head"]["num_classes"]) == ("grid", 3)


def test_verbose_says_how_each_case_went(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(images, tmp_path, "--verbose", "--tta", "flips")
    lines = capsys.readouterr().out.splitlines()
    for case, report in reports(tmp_path).items():
        (line,) = [line for line in lines if line.startswith(f"{case}: ")]
        assert report["class_names"][report["pred"]] in line and "4 windows of 4 passes" in line


def test_flags_that_contradict_each_other_are_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags in (("--tta", "full", "--disable_tta"), ("--fast", "--tta", "flips")):
        with pytest.raises(SystemExit) as stop:
            run(images, tmp_path, *flags)
        assert stop.value.code == 2 and "--tta: expected one choice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--fast",), {"tta": "pair", "skip_empty": True, "passes_per_window": 2}),
        (("--disable_tta", "--tta", "none"), {"tta": "none", "mirror_axes": [], "passes_per_window": 1}),
        (("--tta", "flips"), {"tta": "flips", "mirror_axes": [0, 1, 2], "passes_per_window": 4}),
        (("--backend", "openvino", "--precision", "f32"), {"backend": "openvino", "precision": "f32"}),
    ],
)
def test_flags_reach_the_network_and_are_noted(
    flags: tuple[str, ...], expected: dict[str, object], model: Path, images: Path, tmp_path: Path
) -> None:
    run(images, tmp_path, *flags)
    for report in reports(tmp_path).values():
        assert expected.items() <= report["produced_by"].items()


def test_threads_do_not_mix_up_cases(model: Path, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "one", "--disable_tta")
    run(images, tmp_path / "many", "--disable_tta", "-npp", "3", "-nps", "3")
    assert reports(tmp_path / "one") == reports(tmp_path / "many")
    for case in CASES:
        assert np.array_equal(read(tmp_path / "one" / f"{case}.nii.gz"), read(tmp_path / "many" / f"{case}.nii.gz"))


def test_parts_of_a_split_run_add_up(model: Path, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "whole", "--disable_tta")
    out = tmp_path / "parts"
    run(images, out, "--disable_tta", "-num_parts", "2", "-part_id", "1")
    assert list(reports(out)) == ["new_001"]
    run(images, out, "--disable_tta", "-num_parts", "2", "-part_id", "0")
    for name in ("subtype_results.csv", "subtype_probabilities.csv"):
        assert read_rows(out / name) == read_rows(tmp_path / "whole" / name)
    for part, cases in enumerate((["new_000", "new_002"], ["new_001"])):
        assert json.loads((out / f"prediction_manifest_part{part}of2.json").read_text())["cases"] == cases


def test_older_trainer_name_finds_the_only_fine_tuned_model(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(images, tmp_path / "out", "--disable_tta", "-tr", "nnUNetTrainer_CLSHeadSum")
    assert f"No model of nnUNetTrainer_CLSHeadSum; using {model.name}." in capsys.readouterr().out
    assert list(reports(tmp_path / "out")) == CASES


def test_stock_command_needs_no_variable_for_a_stage2_checkpoint(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("NNUNETV2_"):
            monkeypatch.delenv(name)
    stock_prediction(model, images, tmp_path / "stock", (0,), mirror=False)
    assert len(list((tmp_path / "stock").glob("*.nii.gz"))) == 3


@pytest.mark.parametrize("head", ["CLSHeadSum", "CLSHeadMA"])
def test_script_path_of_the_first_release_works_from_the_repository_root(head: str) -> None:
    root = Path(nnunet_3dct.__file__).parents[1]
    script = f"nnunetv2/inference/predict_classification_fast_{head}.py"
    done = subprocess.run([sys.executable, script, "--help"], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for flag in (
        "-i",
        "-o",
        "-co",
        "-d",
        "-tr",
        "-chk",
        "--disable_tta",
        "--save_probabilities",
        "-num_parts",
    ):
        assert flag in done.stdout.split() or f"{flag} " in done.stdout


def test_class_names_of_another_number_are_left_out_with_both_numbers(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["cls_head_config"]["class_names"] = ["solid", "cystic"]
    torch.save(checkpoint, path)
    run(images, tmp_path, "--disable_tta")
    assert "expected 3 names" in (said := capsys.readouterr().out) and "found 2" in said
    assert all("class_names" not in report for report in reports(tmp_path).values())
    assert (tmp_path / "subtype_probabilities.csv").read_text().startswith("Names,class_0,class_1,class_2")
