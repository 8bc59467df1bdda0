"""``NNUNETV2_MT_STANDARDIZE``: the published heads as we train them, and as published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunet_3dct.errors import CheckpointError, SettingsError
from tests import toy

STANDARDIZE, PRE = "NNUNETV2_MT_STANDARDIZE", "NNUNETV2_PRE_CHECKPOINT_PATH"
SIMPLE, LESION = "nnUNetTrainer_CLSHeadSimple", "nnUNetTrainer_CLSHeadLesion"
published = pytest.mark.parametrize("name", ["Sum", "Simple", "SepOpt"])


def standardises(trainer) -> bool:
    if not trainer.was_initialized:
        trainer.initialize()
    return any(key.startswith("prepare") for key in trainer.multitask_network.cls_head.state_dict())


@published
def test_head_reads_raw_features_on_request_only(name: str, nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for value in ("", "on", "off"):
        monkeypatch.setenv(STANDARDIZE, value)
        trainer = toy.get_trainer(f"nnUNetTrainer_CLSHead{name}")
        found.append((standardises(trainer), trainer.settings_in_force()[STANDARDIZE]))
    assert found == [(True, "on"), (True, "on"), (False, "off")]


def test_trainer_without_the_option_refuses_the_variable(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STANDARDIZE, "off")
    with pytest.raises(SettingsError, match=rf"{STANDARDIZE}=off: expected a trainer of a published.*found {LESION}"):
        toy.get_trainer(LESION)
    assert toy.folders_below(nnunet) == []


def raw_model(monkeypatch: pytest.MonkeyPatch, noted: bool) -> Path:
    """A trained model as published; if not ``noted``, one from before there was the option."""
    with monkeypatch.context() as context:
        context.setenv(STANDARDIZE, "off")
        trainer = toy.get_trainer(SIMPLE)
        trainer.run_training()
    path = Path(trainer.output_folder) / "checkpoint_final.pth"
    if not noted:
        content = torch.load(path, weights_only=True)
        del content["cls_head_config"]["options"]["standardize"], content["mt_settings"][STANDARDIZE]
        torch.save(content, path)
    return path


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "from before"])
def test_begun_training_goes_on_with_raw_features(
    noted: bool, nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = raw_model(monkeypatch, noted)
    resumed = toy.get_trainer(SIMPLE, resume=True)
    resumed.on_train_start()
    assert not standardises(resumed)
    if noted:
        monkeypatch.setenv(STANDARDIZE, "on")
        with pytest.raises(CheckpointError, match=f"{STANDARDIZE}: expected off, found on"):
            toy.get_trainer(SIMPLE, resume=True).on_train_start()

    monkeypatch.setenv(PRE, str(path))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "second"))
    monkeypatch.setenv(STANDARDIZE, "on")
    with pytest.raises(SettingsError, match=rf"{STANDARDIZE}=on: expected off, with which the head in .* was trained"):
        toy.get_trainer(SIMPLE)
    monkeypatch.delenv(STANDARDIZE)
    started = toy.get_trainer(SIMPLE)
    started.on_train_start()
    expected = torch.load(path, weights_only=True)["cls_head_state"]
    found = started.multitask_network.cls_head.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
