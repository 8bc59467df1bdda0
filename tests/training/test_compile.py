"""A network under ``torch.compile`` trains, validates and predicts as without; traced on the CPU only.

nnU-Net itself compiles on CUDA only; what matters here is that our calls and wrappers survive the tracing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_3dct.inference.model import TrainedModel
from nnunet_3dct.inference.options import PredictionOptions
from nnunet_3dct.networks.multitask_unet import uncompiled
from tests import toy

TRAINERS = ["nnUNetTrainer_CLSHeadSum", "nnUNetTrainer_CLSHeadLesion"]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def trained(name: str, monkeypatch: pytest.MonkeyPatch, results: Path, compiled: bool) -> dict[str, Any]:
    """The last checkpoint of a short training."""
    monkeypatch.setenv("nnUNet_results", str(results))
    trainer = toy.get_trainer(name)
    trainer.initialize()
    if compiled:
        trainer.network = torch.compile(trainer.network, backend="eager")  # as nnU-Net does in initialize()
    trainer.run_training()
    trainer.perform_actual_validation(False)
    assert (uncompiled(trainer.network) is not trainer.network) == compiled
    return torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=True)


@pytest.mark.parametrize("name", TRAINERS)
def test_compiled_training_gives_the_same_weights_under_the_same_names(
    name: str, nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained(name, monkeypatch, tmp_path / "plain", compiled=False)
    compiled = trained(name, monkeypatch, tmp_path / "compiled", compiled=True)
    for part in ("network_weights", "cls_head_state"):
        assert compiled[part].keys() == plain[part].keys()
        for key, expected in plain[part].items():
            torch.testing.assert_close(compiled[part][key], expected, msg=key)
    assert compiled["mt_best_cls"] == pytest.approx(plain["mt_best_cls"])


def test_compiled_prediction_gives_the_same_class_and_logits(
    trained_results: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toy.trained_folder(trained_results, toy.FINE_TUNING)
    case = torch.randn(1, 16, 24, 24, generator=torch.Generator().manual_seed(0))
    found = []
    for compiled in (False, True):
        if compiled:
            monkeypatch.setenv("nnUNet_compile", "true")
            monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
        predictor = TrainedModel(folder, [0], options=PredictionOptions(device="cpu", tta="none", backend="torch"))
        assert (uncompiled(predictor.backends[0].runs) is not predictor.backends[0].runs) == compiled
        found.append(predictor.predict(case))
    assert found[1].case_class.probs == pytest.approx(found[0].case_class.probs, abs=1e-6)
    torch.testing.assert_close(found[1].logits, found[0].logits)
