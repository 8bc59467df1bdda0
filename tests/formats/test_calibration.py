"""Calibrated probabilities and cases marked for review."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from nnunet_3dct.errors import CheckpointError, SettingsError
from nnunet_3dct.formats.calibration import keep_copy, read_temperature, remove_calibration, write_calibration
from nnunet_3dct.formats.checkpoint import HEAD_STATE, fingerprint, read_checkpoint
from nnunet_3dct.inference import Predictor
from tests import toy
from tests.inference.predicting import reports, run


def calibrate(model: Path, temperature: object, weights: str | None = None) -> None:
    found = fingerprint(read_checkpoint(model / "fold_0" / "checkpoint_final.pth")[HEAD_STATE])
    content = {"temperature": temperature, "head_weights": {"0": weights or found}}
    (model / "calibration.json").write_text(json.dumps(content))


def test_temperature_changes_probabilities_and_nothing_else(model: Path, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "raw")
    calibrate(model, 2.5)
    run(images, tmp_path / "calibrated")
    raw, calibrated = reports(tmp_path / "raw"), reports(tmp_path / "calibrated")
    for case, report in calibrated.items():
        assert report["logits"] == raw[case]["logits"] and report["pred"] == raw[case]["pred"]
        assert report["probs"] == pytest.approx(softmax(np.array(report["logits"]) / 2.5))
        assert report["probs"] != pytest.approx(raw[case]["probs"], abs=1e-4)
        assert report["temperature"] == 2.5 and "temperature" not in raw[case]
        segmentations = [tmp_path / folder / f"{case}.nii.gz" for folder in ("raw", "calibrated")]
        assert segmentations[0].read_bytes() == segmentations[1].read_bytes()
    table = (tmp_path / "calibrated" / "subtype_probabilities.csv").read_text()
    assert f"{next(iter(calibrated.values()))['probs'][0]:.6f}" in table


def test_validation_names_the_weights_that_the_predictor_loads(model: Path, trained_results: Path) -> None:
    folder = toy.trained_folder(trained_results, toy.FINE_TUNING) / "fold_0" / "validation"
    report = json.loads((folder / f"{toy.VALIDATION[0]}_classification.json").read_text())
    weights = read_checkpoint(model / "fold_0" / "checkpoint_final.pth")[HEAD_STATE]
    assert report["produced_by"]["head_weights"] == {"0": fingerprint(weights)}


def test_calibration_of_other_weights_is_not_applied(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate(model, 2.5, "0123456789abcdef")
    run(images, tmp_path)
    message = capsys.readouterr().err
    assert "calibration.json is not applied" in message and "nnUNet3DCT_calibrate again" in message
    for report in reports(tmp_path).values():
        assert report["probs"] == pytest.approx(softmax(report["logits"]))
    with pytest.warns(UserWarning, match="not applied"):
        Predictor(model, device="cpu", backend="torch")


@pytest.mark.parametrize("content", ["{", "[]", '{"temperature": "hot", "head_weights": {}}', '{"temperature": 2}'])
def test_file_that_is_no_calibration_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"calibration\.json cannot be read.*nnUNet3DCT_calibrate"):
        read_temperature(tmp_path, {"0": "a"})


def test_temperature_has_to_be_positive(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text('{"temperature": 0, "head_weights": {}}')
    with pytest.raises(CheckpointError, match="above 0, found 0"):
        read_temperature(tmp_path, {})


HEADS = {"0": "a", "1": "b"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a calibration."""
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0}, "numTraining": 3}')
    write_calibration({"temperature": 2.0, "head_weights": HEADS, "n_cases": 60}, tmp_path)
    return tmp_path


def test_copy_is_read_where_the_file_is_lost(folder: Path) -> None:
    (folder / "calibration.json").unlink()
    assert read_temperature(folder, HEADS) == (2, None)
    temperature, note = read_temperature(folder, {"0": "others"})
    assert temperature is None and note is not None and "dataset.json is not applied" in note and "fold 0" in note


def test_file_of_a_model_that_was_here_before_does_not_hide_the_copy(folder: Path) -> None:
    stale = {"temperature": 5.0, "head_weights": {"0": "former"}}
    (folder / "calibration.json").write_text(json.dumps(stale))
    assert read_temperature(folder, {"0": "a"}) == (2, None)
    assert read_temperature(folder, {"0": "former"}) == (5, None)


def test_everything_else_in_the_description_stays(folder: Path) -> None:
    description = json.loads((folder / "dataset.json").read_text())
    assert description.pop("calibration") == {"temperature": 2.0, "head_weights": HEADS}
    assert description == {"labels": {"background": 0}, "numTraining": 3}
    assert remove_calibration(folder) is True and remove_calibration(folder) is False
    assert json.loads((folder / "dataset.json").read_text()) == description
    assert read_temperature(folder, HEADS) == (None, None)


def test_copy_is_put_back_after_nnunet_wrote_the_description_anew(folder: Path) -> None:
    before = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text('{"labels": {"background": 0}, "numTraining": 3}')
    keep_copy(folder)
    assert (folder / "dataset.json").read_text() == before
    (folder / "calibration.json").write_text("{")  # told of by read_temperature, no reason to stop a training
    keep_copy(folder)
    assert (folder / "dataset.json").read_text() == before


def test_model_without_a_description_keeps_the_file_alone(tmp_path: Path) -> None:
    assert write_calibration({"temperature": 2.0, "head_weights": HEADS}, tmp_path) == tmp_path / "calibration.json"
    assert read_temperature(tmp_path, HEADS) == (2, None)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize("copy", ["null", '"hot"', '{"temperature": -1, "head_weights": {}}', "{}"])
def test_copy_that_is_no_calibration_is_refused(copy: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(f'{{"calibration": {copy}}}')
    with pytest.raises(CheckpointError, match=r"dataset\.json.*nnUNet3DCT_calibrate"):
        read_temperature(tmp_path, {})


def test_calibration_travels_with_an_exported_model(
    nnunet: Path, trained_results: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.model_sharing.model_export import export_pretrained_model
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    source = toy.trained_folder(trained_results, toy.FINE_TUNING)
    model = nnunet / toy.DATASET / source.name
    shutil.copytree(source, model)
    weights = fingerprint(read_checkpoint(model / "fold_0" / "checkpoint_final.pth")[HEAD_STATE])
    write_calibration({"temperature": 2.5, "head_weights": {"0": weights}}, model)
    run(images, tmp_path / "here")
    export_pretrained_model(
        toy.DATASET, str(tmp_path / "model.zip"), ("3d_fullres",), toy.FINE_TUNING, toy.PLANS, folds=(0,)
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("nnUNet_results", str(elsewhere))
    install_model_from_zip_file(str(tmp_path / "model.zip"))
    installed = elsewhere / toy.DATASET / source.name
    assert installed.is_dir() and not (installed / "calibration.json").exists()
    assert read_temperature(installed, {"0": weights}) == (2.5, None)
    run(images, tmp_path / "there")
    here, there = reports(tmp_path / "here"), reports(tmp_path / "there")
    assert [there[case]["probs"] for case in here] == [here[case]["probs"] for case in here]
    assert {report["temperature"] for report in there.values()} == {2.5}


def test_training_another_fold_keeps_the_copy(nnunet: Path, trained_results: Path) -> None:
    source = toy.trained_folder(trained_results, toy.STAGE1)
    model = nnunet / toy.DATASET / source.name.replace(toy.STAGE1, "nnUNetTrainer_CLSHeadSum")
    model.mkdir(parents=True)
    write_calibration({"temperature": 2.5, "head_weights": {"3": "a"}}, model)
    toy.get_trainer("nnUNetTrainer_CLSHeadSum").on_train_start()
    assert "calibration" in json.loads((model / "dataset.json").read_text())
    (model / "calibration.json").unlink()
    assert read_temperature(model, {"3": "a"}) == (2.5, None)


def test_a_fold_that_was_not_calibrated_with_the_others_turns_it_off(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text('{"temperature": 2, "head_weights": {"0": "a", "1": "b"}}')
    assert read_temperature(tmp_path, {"0": "a", "1": "b"}) == (2, None)
    assert read_temperature(tmp_path, {"1": "b"}) == (2, None)
    temperature, note = read_temperature(tmp_path, {"0": "a", "2": "c"})
    assert temperature is None and note is not None and "fold 2" in note


def test_cases_below_the_threshold_are_marked_and_listed(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(images, tmp_path)
    highest = {case: max(report["probs"]) for case, report in reports(tmp_path).items()}
    assert not any("review" in report for report in reports(tmp_path).values())
    threshold = float(np.mean(sorted(highest.values())[:2]))  # between the lowest and the second
    run(images, tmp_path, "--abstain", str(threshold))
    expected = {case for case, value in highest.items() if value < threshold}
    assert {case for case, report in reports(tmp_path).items() if report["review"]} == expected and len(expected) == 1
    out = capsys.readouterr().out
    assert "For review" in out and all(case in out.split("For review")[1] for case in expected)
    assert json.loads((tmp_path / "prediction_manifest.json").read_text())["review"].keys() == expected


def test_python_class_marks_cases_too(model: Path, images: Path) -> None:
    file = sorted(images.iterdir())[0]
    assert Predictor(model, device="cpu", backend="torch")(file).review is None
    assert Predictor(model, device="cpu", backend="torch", abstain=0.999)(file).review is True
    with pytest.raises(SettingsError, match="between 0 and 1, found 2"):
        Predictor(model, device="cpu", abstain=2)


def test_threshold_out_of_range_is_refused(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(images, tmp_path, "--abstain", "60")
    assert caught.value.code == 2
    assert "--abstain: expected a probability between 0 and 1, found 60" in capsys.readouterr().err
