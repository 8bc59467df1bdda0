"""nnU-Net starts a case again after any RuntimeError; what was recorded of the first attempt must not count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_3dct.inference import ensemble
from nnunet_3dct.inference.backends.torch_backend import TorchBackend
from nnunet_3dct.training.fold_volumes import volume_runner
from nnunet_3dct.upstream import nnUNetPredictor
from tests import toy

LESION = "nnUNetTrainer_CLSHeadLesion"


@pytest.fixture
def failing_first_attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As on CUDA with little memory: each case fails in its third window, after the network's pass, then starts anew.

    Returns a list that holds the number of failures.
    """
    start, attempt, window = (
        nnUNetPredictor.__init__,
        nnUNetPredictor._internal_predict_sliding_window_return_logits,
        nnUNetPredictor._internal_maybe_mirror_and_predict,
    )
    failures = [0]

    def with_fallback(self: Any, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        self.perform_everything_on_device = True  # off CUDA nnU-Net has no second attempt

    def counted(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        self.windows_until_failure = 3 if do_on_device else -1
        return attempt(self, data, slicers, do_on_device)

    def predict(self: Any, x: Any) -> Any:
        logits = window(self, x)
        self.windows_until_failure -= 1
        if self.windows_until_failure == 0:
            failures[0] += 1
            raise RuntimeError("CUDA out of memory, outside the network")
        return logits

    monkeypatch.setattr(nnUNetPredictor, "__init__", with_fallback)
    monkeypatch.setattr(nnUNetPredictor, "_internal_predict_sliding_window_return_logits", counted)
    monkeypatch.setattr(nnUNetPredictor, "_internal_maybe_mirror_and_predict", predict)
    return failures


def validated(folder: Path) -> dict[str, Any]:
    return {
        case: json.loads((folder / "validation" / f"{case}_classification.json").read_text()) for case in toy.VALIDATION
    }


def test_final_validation_gives_the_classes_of_an_unbroken_one(
    model: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.train(toy.FINE_TUNING, only_run_validation=True)
    expected = validated(model / "fold_0")
    failures = request.getfixturevalue("failing_first_attempts")
    toy.train(toy.FINE_TUNING, only_run_validation=True)
    assert failures == [len(toy.VALIDATION)]
    assert "Prediction on device was unsuccessful" in capsys.readouterr().out
    assert validated(model / "fold_0") == expected


def test_score_of_an_epoch_and_features_of_the_last_fit_are_those_of_unbroken_cases(
    nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toy.get_trainer(LESION)
    trainer.on_train_start()
    runner = volume_runner(trainer)
    classes, features = runner.classify(toy.VALIDATION), runner.columns(toy.TRAINING)
    calls, run_windows = [0], TorchBackend.__call__

    def short_of_memory(self: TorchBackend, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run_windows(self, *args)

    cpu = torch.device("cpu")
    monkeypatch.setattr(TorchBackend, "__call__", short_of_memory)
    monkeypatch.setattr(ensemble, "ways_to_run", lambda *_: [(2, cpu), (1, cpu)])
    again = runner.classify(toy.VALIDATION)
    assert calls[0] > 3 and again.keys() == classes.keys()
    for case, found in classes.items():
        np.testing.assert_allclose(again[case].probs, found.probs, rtol=1e-5)
        assert again[case].windows == found.windows
    calls[0] = 0
    for case, row in runner.columns(toy.TRAINING).items():
        np.testing.assert_allclose(row, features[case], rtol=1e-4, atol=1e-5)
    assert calls[0] > 3
