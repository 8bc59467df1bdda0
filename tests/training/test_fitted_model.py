"""The class for a trained segmentation model, without training its network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nnunet_3dct
from nnunet_3dct.cli import fit_head as command
from nnunet_3dct.formats.calibration import read_temperature
from nnunet_3dct.formats.checkpoint import read_checkpoint
from nnunet_3dct.inference.windows import Windows
from nnunet_3dct.training.fitted_model import RESULT, TRAINER, fit_head
from tests import toy


@pytest.fixture
def stage_1(nnunet: Path, trained_results: Path) -> Path:
    """A copy of the toy's stage 1."""
    source = toy.trained_folder(trained_results, toy.STAGE1)
    return Path(shutil.copytree(source, nnunet / toy.DATASET / source.name))


def fit(model: Path, **options: Any) -> tuple[Any, Path]:
    output = model.parent / f"{TRAINER}__{toy.PLANS}__3d_fullres"
    return fit_head(model, output, backend="torch", device="cpu", resamples=50, **options), output


def exit_code(*arguments: str) -> int:
    try:
        command.main([*arguments, "-p", toy.PLANS, "-device", "cpu", "--backend", "torch", "--disable_progress_bar"])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_predictor_gives_the_class_that_the_fit_gave_to_the_validation_cases(stage_1: Path, toy_root: Path) -> None:
    result, output = fit(stage_1)
    assert result["out_of_fold"]["n_samples"] == len(toy.VALIDATION)
    assert json.loads((output / RESULT).read_text())["folds"]["0"]["training_cases"] == [2, 2, 2]
    predictor = nnunet_3dct.Predictor(output, device="cpu", backend="torch", tta="none")
    for case in toy.VALIDATION:
        stored = json.loads((output / "fold_0" / "validation" / f"{case}_classification.json").read_text())
        image = toy_root / "raw" / toy.DATASET / "imagesTr" / f"{case}_0000.nii.gz"
        found = predictor(image)
        logits = np.asarray(found.class_file["logits"])
        np.testing.assert_allclose(torch.tensor(logits).softmax(0).numpy(), stored["probs"], atol=2e-3)
        assert found.class_file["reasons"] and found.class_file["produced_by"]["trainer"] == TRAINER


def test_network_stays_as_it_was(stage_1: Path) -> None:
    _, output = fit(stage_1)
    before = read_checkpoint(stage_1 / "fold_0" / "checkpoint_final.pth")["network_weights"]
    after = torch.load(output / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_features_are_kept_by_weights_and_case(stage_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    predict = Windows.predict

    def counted(self: Windows, *args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return predict(self, *args, **kwargs)

    monkeypatch.setenv("NNUNET3DCT_CACHE", str(stage_1.parent / "kept"))
    monkeypatch.setattr(Windows, "predict", counted)
    first, _ = fit(stage_1)
    assert len(passes) == len(toy.CASES)
    second, _ = fit(stage_1, overwrite=True)
    assert len(passes) == len(toy.CASES) and first["out_of_fold"] == second["out_of_fold"]
    kept = sorted((stage_1.parent / "kept" / "features").rglob("*.npy"))
    kept[0].write_bytes(b"half")
    assert fit(stage_1, overwrite=True)[0]["out_of_fold"] == first["out_of_fold"] and len(passes) == len(toy.CASES) + 1


def test_crossval_and_calibration_take_what_was_written(nnunet: Path, trained_results: Path) -> None:
    source = toy.trained_folder(trained_results, toy.FINE_TUNING)  # whose segmentation is validated
    _, output = fit(Path(shutil.copytree(source, nnunet / toy.DATASET / source.name)))
    found = nnunet_3dct.cross_validate(output, resamples=50)
    assert found["classification"]["pooled"]["n_samples"] == len(toy.VALIDATION)
    weights = json.loads((output / "calibration.json").read_text())["head_weights"]
    assert read_temperature(output, weights)[0] is not None


def test_calibration_of_all_folds_is_used_where_all_are_in_use(stage_1: Path) -> None:
    _, output = fit(stage_1)
    path = output / "calibration.json"
    content = json.loads(path.read_text())
    content |= {"temperature": 2.0, "ensemble_temperature": 3.0, "head_weights": {"0": "a", "1": "b"}}
    path.write_text(json.dumps(content))
    assert read_temperature(output, {"0": "a", "1": "b"})[0] == 3.0
    assert read_temperature(output, {"0": "a"})[0] == 2.0
    assert read_temperature(output, {"0": "a", "1": "x"})[0] is None


def test_command_says_what_was_chosen_and_refuses_to_replace(stage_1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("-d", toy.DATASET, "-tr", toy.STAGE1) == 0
    out = capsys.readouterr().out
    assert "fold 0: 6 training cases" in out and "macro-F1" in out and "neither network nor fit has seen" in out
    assert exit_code("-d", toy.DATASET, "-tr", toy.STAGE1) == 2
    assert "found one that was trained or fitted before" in capsys.readouterr().err
    assert exit_code("-d", toy.DATASET, "-tr", toy.STAGE1, "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-tr", "nnUNetTrainer_NotThere"], "expected a trained model, found none"),
        (["-tr", toy.STAGE1, "-f", "7"], "Fold 7: expected one from 0"),
        (["-tr", toy.STAGE1, "-chk", "checkpoint_other.pth"], "expected a fold with checkpoint_other.pth"),
        (["-tr", toy.STAGE1, "--target_labels", "tail"], "expected foreground labels of dataset.json"),
        (["-tr", toy.STAGE1, "--class_weights", "1,x"], "NNUNETV2_MT_CLASS_WEIGHTS"),
    ],
)
def test_bad_input_is_named_before_any_work(
    stage_1: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("-d", toy.DATASET, *arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err and "Traceback" not in printed.err
    assert not (stage_1.parent / f"{TRAINER}__{toy.PLANS}__3d_fullres").exists()


def test_too_few_cases_of_two_classes_are_named(
    stage_1: Path, toy_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    classes = {case: 0 if case in toy.TRAINING else k for case, k in toy.CLASSES.items()}
    toy.use_labels(monkeypatch, toy_root, tmp_path / "changed", classes)
    with pytest.raises(nnunet_3dct.errors.SettingsError, match=r"expected two training cases of two classes .* found"):
        fit(stage_1)
