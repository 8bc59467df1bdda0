"""On a CUDA device: the same answers as on the CPU, and trainings that end as they should.

Skipped with the reason where torch finds no such device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import nnunet_3dct
from tests import toy

pytestmark = pytest.mark.cuda
DEVICE = "cuda"
TRAINERS = ("CLSHeadSum", "CLSHeadSumFT", "CLSHeadSimple", "CLSHeadSepOpt", "CLSHeadMA", "CLSHeadLesion")


@pytest.fixture
def stage_1(trained_results: Path) -> Path:
    return toy.trained_folder(trained_results, toy.STAGE1) / "fold_0" / "checkpoint_best.pth"


@pytest.fixture
def switches() -> Iterator[dict[str, bool]]:
    """The process-wide switches as they were before; the same ones have to be there after the test."""

    def now() -> dict[str, bool]:
        return {
            "benchmark": torch.backends.cudnn.benchmark,
            "deterministic": torch.backends.cudnn.deterministic,
            "tf32_of_cudnn": torch.backends.cudnn.allow_tf32,
            "tf32_of_matmul": torch.backends.cuda.matmul.allow_tf32,
        }

    before = now()
    yield before
    assert now() == before


def predicted(model: Path, image: Path, device: str, precision: str, **options: object) -> nnunet_3dct.Prediction:
    predictor = nnunet_3dct.Predictor(model, device=device, backend="torch", precision=precision, **options)  # type: ignore[arg-type]
    return predictor(image)


@pytest.mark.parametrize(("precision", "voxels", "probability"), [("f32", 0.999, 0.01), ("fp16", 0.99, 0.05)])
def test_predictor_answers_as_on_the_cpu(
    model: Path, images: Path, precision: str, voxels: float, probability: float, switches: dict[str, bool]
) -> None:
    for image in sorted(images.iterdir()):
        expected = predicted(model, image, "cpu", "f32")
        found = predicted(model, image, DEVICE, precision)
        assert (found.segmentation == expected.segmentation).mean() >= voxels
        assert np.abs(np.subtract(found.probs, expected.probs)).max() <= probability


def test_evidence_is_that_of_the_cpu(model: Path, images: Path) -> None:
    image = sorted(images.iterdir())[0]
    expected = predicted(model, image, "cpu", "f32", explain=True).evidence
    found = predicted(model, image, DEVICE, "f32", explain=True).evidence
    assert expected is not None and found is not None
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.99


def test_command_predicts_a_folder(model: Path, images: Path, tmp_path: Path) -> None:
    from nnunet_3dct.cli.predict import main

    arguments = ["-i", images, "-o", tmp_path / "out", "-d", toy.DATASET, "-c", "3d_fullres", "-p", toy.PLANS]
    main([str(a) for a in [*arguments, "-tr", toy.FINE_TUNING, "-device", DEVICE, "--disable_progress_bar"]])
    for n in range(3):
        assert (tmp_path / "out" / f"new_{n:03d}.nii.gz").is_file()
        assert (tmp_path / "out" / f"new_{n:03d}_classification.json").is_file()
    manifest = json.loads((tmp_path / "out" / "prediction_manifest.json").read_text())
    assert not manifest["failed"]


@pytest.mark.parametrize("name", TRAINERS)
def test_training_ends_with_a_checkpoint_and_a_class_for_each_validation_case(
    name: str, nnunet: Path, stage_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(stage_1))
    fold = train(f"nnUNetTrainer_{name}", nnunet)
    assert (fold / "checkpoint_final.pth").is_file()
    for case in toy.VALIDATION:
        assert (fold / "validation" / f"{case}_classification.json").is_file()


@pytest.mark.slow
def test_compiled_network_trains_and_validates(nnunet: Path, stage_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_compile", "true")
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(stage_1))
    assert (train(toy.FINE_TUNING, nnunet) / "checkpoint_final.pth").is_file()


def train(trainer: str, results: Path) -> Path:
    """``nnUNetv2_train`` on the device; returns the fold's folder."""
    from nnunetv2.run.run_training import run_training

    run_training(toy.DATASET, "3d_fullres", 0, trainer, toy.PLANS, device=torch.device(DEVICE))
    return toy.trained_folder(results, trainer) / "fold_0"
