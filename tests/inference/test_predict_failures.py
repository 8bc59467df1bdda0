"""``nnUNet3DCT_predict`` on faulty input and after a kill: whole cases or nothing, and clear messages."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nnunetv2.inference.export_prediction as upstream_export
import numpy as np
import pytest
import SimpleITK
import torch

from nnunet_3dct.formats.image_files import check_image_file
from tests import toy
from tests.inference.predicting import arguments, reports, run
from tests.utils import empty, truncate, write_volume


def fails(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Everything the failing command says; its exit code is not 0."""
    with pytest.raises(SystemExit) as caught:
        run(*args)  # type: ignore[arg-type]
    assert caught.value.code in (1, 2)  # some cases failed, or wrong use
    return capsys.readouterr().err


def copied(images: Path, folder: Path) -> Path:
    shutil.copytree(images, folder)
    return folder


def files_of(case: str, folder: Path) -> list[str]:
    return [path for path in toy.folders_below(folder) if case in path]


def bytes_of(case: str, folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_of(case, folder)}


def add_second_channel(folder: Path) -> None:
    """Give new_001 a second channel, which the network does not take."""
    write_volume(folder / "new_001_0001.nii.gz", toy.toy_volume(1)[0])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda folder: truncate(folder / "new_001_0000.nii.gz", 0.6), "truncated"),
        (lambda folder: empty(folder / "new_001_0000.nii.gz"), "0 bytes"),
        (add_second_channel, "channel"),
    ],
    ids=["truncated", "empty", "channels"],
)
def test_one_faulty_case_does_not_stop_the_others(
    fault, words: str, model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = copied(images, tmp_path / "in"), tmp_path / "out"
    fault(folder)
    message = fails(capsys, folder, out, "--disable_tta", "--save_probabilities")
    assert "1 of 3 cases failed" in message and "new_001" in message
    assert files_of("new_001", out) == []
    assert list(reports(out)) == ["new_000", "new_002"]
    assert "new_001" not in (out / "subtype_results.csv").read_text()
    failed = json.loads((out / "prediction_manifest.json").read_text())["failed"]
    assert list(failed) == ["new_001"]
    assert words in failed["new_001"].lower(), failed
    run(images, tmp_path / "sound", "--disable_tta", "--save_probabilities")
    for case in ("new_000", "new_002"):
        assert bytes_of(case, out).keys() == bytes_of(case, tmp_path / "sound").keys()
        segmentations = [SimpleITK.ReadImage(str(f / f"{case}.nii.gz")) for f in (out, tmp_path / "sound")]
        assert np.array_equal(*map(SimpleITK.GetArrayFromImage, segmentations))


def test_failed_export_leaves_nothing_of_the_case(
    model: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound = upstream_export.export_prediction_from_logits

    def full_disk(logits, properties, *args, **kwargs) -> None:
        sound(logits, properties, *args, **kwargs)
        if "new_001" in args[3]:
            truncate(Path(args[3] + ".nii.gz"), 0.5)

    monkeypatch.setattr(upstream_export, "export_prediction_from_logits", full_disk)
    message = fails(capsys, images, tmp_path / "out", "--disable_tta", "--save_probabilities")
    assert "new_001" in message
    assert files_of("new_001", tmp_path / "out") == []
    assert list(reports(tmp_path / "out")) == ["new_000", "new_002"]


def test_case_that_fails_keeps_what_an_earlier_run_had_outside_the_tables(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = copied(images, tmp_path / "in"), tmp_path / "out"
    run(folder, out, "--disable_tta")
    before = bytes_of("new_001", out)
    truncate(folder / "new_001_0000.nii.gz", 0.6)
    assert "new_001" in fails(capsys, folder, out, "--disable_tta")
    assert len(before) == 3 and bytes_of("new_001", out) == before
    manifest = json.loads((out / "prediction_manifest.json").read_text())
    assert list(manifest["failed"]) == manifest["earlier_files"] == ["new_001"]
    for table in ("subtype_results.csv", "subtype_probabilities.csv"):
        assert "new_001" not in (out / table).read_text() and "new_002" in (out / table).read_text()


def test_kill_between_class_and_segmentation_leaves_an_incomplete_case(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(images, out, "--disable_tta")

    def killed(self: Path, target: Path) -> None:
        if Path(target).name == "new_001.nii.gz":
            raise KeyboardInterrupt
        original(self, target)

    original = Path.replace
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(SystemExit) as stop:
        run(images, out, "--disable_tta")
    assert stop.value.code == 130
    monkeypatch.undo()
    assert not (out / "new_001.nii.gz").exists()


@pytest.mark.parametrize("ending", [".nii.gz", ".npz", "_classification.json"])
@pytest.mark.parametrize("fraction", [0.5, None], ids=["cut off", "missing"])
def test_continuing_redoes_only_what_is_not_whole(
    ending: str,
    fraction: float | None,
    model: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, flags = tmp_path / "out", ("--disable_tta", "--save_probabilities")
    run(images, out, *flags)
    tables = {name: (out / name).read_text() for name in ("subtype_results.csv", "subtype_probabilities.csv")}
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    whole = json.loads((out / "new_001_classification.json").read_text())
    broken = out / f"new_001{ending}"
    if fraction is None:
        broken.unlink()
    else:
        truncate(broken, fraction)
    capsys.readouterr()
    run(images, out, *flags, "--continue_prediction")
    assert "3 cases in" in (said := capsys.readouterr().out) and "1 to predict" in said
    redone = {p.name for p in out.glob("new_*") if p.stat().st_mtime_ns != stamps[p.name]}
    assert redone == set(files_of("new_001", out))
    check_image_file(out / "new_001.nii.gz")
    assert json.loads((out / "new_001_classification.json").read_text()) == whole
    assert {name: (out / name).read_text() for name in tables} == tables


def test_kill_leaves_only_whole_cases_and_continuing_finishes_them(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = toy.write_toy_inputs(tmp_path / "in", range(12)), tmp_path / "out"
    flags = ("--disable_tta", "--save_probabilities")
    command = [sys.executable, "-m", "nnunet_3dct.cli.predict", *arguments(images, out, *flags)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(out.glob("*.nii.gz")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = sorted(path.name.removesuffix(".nii.gz") for path in out.glob("*.nii.gz"))
    assert 1 <= len(done) < 12
    for case in done:
        check_image_file(out / f"{case}.nii.gz")
        assert len(reports(out)[case]["probs"]) == 3
        assert np.load(out / f"{case}.npz")["probabilities"].shape == (3, *toy.SHAPE)
    run(images, out, *flags, "--continue_prediction")
    assert f"{12 - len(done)} to predict" in capsys.readouterr().out
    assert len(reports(out)) == len(list(out.glob("*.nii.gz"))) == len(list(out.glob("*.npz"))) == 12
    assert list(out.glob(".*")) == []


def test_files_of_a_case_appear_after_the_whole_export(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    sound = upstream_export.export_prediction_from_logits

    def spied(*args, **kwargs) -> None:
        sound(*args, **kwargs)
        seen.append([p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")])

    monkeypatch.setattr(upstream_export, "export_prediction_from_logits", spied)
    run(images, tmp_path / "out", "--disable_tta", "--save_probabilities")
    assert len(seen) == 3
    for n, names in enumerate(seen):
        assert not [name for name in names if f"new_{n:03d}" in name]


# ---------------------------------------------------------------------- models that do not fit


def test_other_number_of_classes_is_refused(
    model: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NNUNETV2_MT_NUM_CLS", "4")
    message = fails(capsys, images, tmp_path / "out")
    assert "expected 4 classes (NNUNETV2_MT_NUM_CLS), found 3" in message and "Unset the variable" in message
    assert not (tmp_path / "out").exists()


def test_stage1_checkpoint_is_refused_with_advice(
    trained_results: Path, nnunet: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.copy_model(toy.trained_folder(trained_results, toy.STAGE1), nnunet)
    message = fails(capsys, images, tmp_path / "out", "-tr", toy.STAGE1)
    assert "expected a classification head" in message and "nnUNetv2_predict for segmentation alone" in message
    assert not (tmp_path / "out").exists()


def test_missing_model_names_those_that_exist(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, images, tmp_path / "out", "-tr", "nnUNetTrainer_CLSHeadMA")
    assert "expected a trained model, found none" in message and model.name in message


def test_missing_checkpoint_names_those_that_exist(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, images, tmp_path / "out", "-chk", "checkpoint_finale.pth")
    assert "expected a fold with checkpoint_finale.pth" in message and "fold_0/checkpoint_best.pth" in message


def test_truncated_checkpoint_is_named(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = truncate(model / "fold_0" / "checkpoint_final.pth", 0.7)
    message = fails(capsys, images, tmp_path / "out")
    assert f"{path} ({path.stat().st_size} bytes) cannot be read" in message


def test_folds_with_different_heads_are_refused(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model / "fold_0", model / "fold_1")
    path = model / "fold_1" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["cls_head_config"]["class_names"] = ["high", "middle", "low"]
    torch.save(checkpoint, path)
    message = fails(capsys, images, tmp_path / "out")
    assert f"{path}: expected the same head" in message


def test_folder_without_images_says_what_was_looked_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "scan.mha").touch()
    message = fails(capsys, tmp_path / "in", tmp_path / "out")
    assert "<case>_0000.nii.gz" in message and "scan.mha" in message
    assert "expected a folder" in fails(capsys, tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("flags", [("-step_size", "0"), ("-npp", "0"), ("-num_parts", "2", "-part_id", "2")])
def test_bad_number_is_named_before_anything_is_read(
    flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flags[-2] in fails(capsys, tmp_path, tmp_path / "out", *flags)
