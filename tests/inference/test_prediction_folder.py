"""The input and output folders of ``nnUNet3DCT_predict``: what belongs there, what is whole, who writes the tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nnunet_3dct.inference.case_writer import remove_leftovers
from tests.inference.predicting import run
from tests.inference.test_predict_failures import fails
from tests.utils import flip_byte


def test_file_of_another_name_is_left_out_and_named(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(images, folder)
    shutil.copyfile(folder / "new_000_0000.nii.gz", folder / "new_000_seg.nii.gz")
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path / "out", "--disable_tta")
    assert stop.value.code == 1
    said = capsys.readouterr()
    manifest = json.loads((tmp_path / "out" / "prediction_manifest.json").read_text())
    assert list(manifest["left_out"]) == ["new_000_seg.nii.gz"] and manifest["failed"] == {}
    assert "3 cases in" in said.out and "Left out of" in said.err and "new_000_seg.nii.gz" in said.err
    assert not (tmp_path / "out" / "new_000_seg.nii.gz").exists()


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        (".npz", lambda path: flip_byte(path, 0.3)),
        (".npz", lambda path: path.write_bytes(path.read_bytes()[:200] + b"\xff" * 400 + path.read_bytes()[600:])),
        ("_classification.json", lambda path: path.write_text("null")),
        ("_classification.json", lambda path: path.write_text("[1]")),
    ],
    ids=["one byte", "run of bytes", "null", "list"],
)
def test_damaged_result_is_predicted_again(
    ending: str, damage: Any, model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--disable_tta", "--save_probabilities")
    run(images, tmp_path, *flags)
    damage(tmp_path / f"new_001{ending}")
    capsys.readouterr()
    run(images, tmp_path, *flags, "--continue_prediction")
    assert "1 to predict" in capsys.readouterr().out


def test_cascade_is_refused_before_any_case(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = json.loads((model / "plans.json").read_text())
    configuration = model.name.split("__")[-1]
    plans["configurations"][configuration]["previous_stage"] = "3d_lowres"
    (model / "plans.json").write_text(json.dumps(plans))
    message = fails(capsys, images, tmp_path / "out")
    assert "a cascade after 3d_lowres" in message and "-prev_stage_predictions" in message
    assert not (tmp_path / "out").exists()


def test_leftovers_of_another_case_with_the_same_beginning_stay(tmp_path: Path) -> None:
    for name in (".a.12.partial", ".a.b.12.partial", ".[x].3.partial"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path, ["a", "[x]"])
    assert [path.name for path in tmp_path.iterdir()] == [".a.b.12.partial"]


@pytest.mark.parametrize("flags", [(), ("--save_probabilities",)], ids=["segmentation", "probabilities"])
def test_case_whose_name_ends_like_a_file_is_written_under_it(
    flags: tuple[str, ...], model: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    shutil.copyfile(images / "new_000_0000.nii.gz", tmp_path / "in" / "scan.nii_0000.nii.gz")
    shutil.copyfile(images / "new_001_0000.nii.gz", tmp_path / "in" / "scan_0000.nii.gz")
    run(tmp_path / "in", tmp_path / "out", "--disable_tta", "--explain", *flags)
    run(images, tmp_path / "sound", "--disable_tta", "--explain", *flags)
    for case, plain in (("scan.nii", "new_000"), ("scan", "new_001")):
        for part in (Path(), Path("evidence")):
            written = (tmp_path / "out" / part / f"{case}.nii.gz").read_bytes()
            assert written == (tmp_path / "sound" / part / f"{plain}.nii.gz").read_bytes()
