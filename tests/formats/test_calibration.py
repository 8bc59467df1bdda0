"""Calibrated probabilities and cases marked for review."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from nnunet_3dct.errors import CheckpointError, SettingsError
from nnunet_3dct.formats.calibration import read_temperature
from nnunet_3dct.formats.checkpoint import HEAD_STATE, fingerprint, read_checkpoint
from nnunet_3dct.inference import Predictor
from tests import toy
from tests.inference.predicting import reports, run


def write_calibration(model: Path, temperature: object, weights: str | None = None) -> None:
    found = fingerprint(read_checkpoint(model / "fold_0" / "checkpoint_final.pth")[HEAD_STATE])
    content = {"temperature": temperature, "head_weights": {"0": weights or found}}
    (model / "calibration.json").write_text(json.dumps(content))


def test_temperature_changes_probabilities_and_nothing_else(model: Path, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "raw")
    write_calibration(model, 2.5)
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
    write_calibration(model, 2.5, "0123456789abcdef")
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


def test_threshold_out_of_range_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--abstain: expected a probability between 0 and 1, found 60"):
        run(images, tmp_path, "--abstain", "60")
