"""Settings, folders and trained toy models for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import toy

# nnU-Net reads this one when it is imported: one worker instead of eight for each of its pools
os.environ["nnUNet_def_n_proc"] = "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a CUDA device where there is none."""
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, torch finds none")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests see no variable of the shell that they run in."""
    for name in list(os.environ):
        if name.startswith("NNUNETV2_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NNUNET3DCT_CACHE", str(tmp_path_factory.getbasetemp() / "converted"))


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``raw`` and ``preprocessed``, made by nnU-Net's own planning and preprocessing."""
    root = tmp_path_factory.mktemp("nnunet")
    toy.write_raw_toys(root / "raw")
    with _folders(root, root / "results") as environment:
        environment.setenv("nnUNet_n_proc_DA", "1")  # nnU-Net's planner takes it as a number of threads
        toy.plan_and_preprocess(root / "preprocessed")
    return root


@pytest.fixture(scope="session")
def trained_results(toy_root: Path) -> Path:
    """``nnUNet_results`` after stage 1 and fine-tuning with ``--npz``; read only."""
    results = toy_root / "results"
    with _folders(toy_root, results) as environment:
        toy.get_trainer(toy.STAGE1).run_training()
        stage1 = toy.trained_folder(results, toy.STAGE1) / "fold_0" / "checkpoint_best.pth"
        environment.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(stage1))
        toy.train(toy.FINE_TUNING, export_validation_probabilities=True)
    return results


@pytest.fixture
def nnunet(toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's variables for short runs on the toys; returns this test's own empty ``nnUNet_results``."""
    _set_folders(monkeypatch, toy_root, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases that the network has not seen, ``new_000`` to ``new_002``; read only."""
    return toy.write_toy_inputs(tmp_path_factory.mktemp("images"), range(3))


@pytest.fixture
def model(nnunet: Path, trained_results: Path) -> Path:
    """A copy of the fine-tuned model in this test's own ``nnUNet_results``."""
    return toy.copy_model(toy.trained_folder(trained_results, toy.FINE_TUNING), nnunet)


@contextmanager
def _folders(root: Path, results: Path) -> Iterator[pytest.MonkeyPatch]:
    """The variables while a session fixture works; tests set theirs by the fixture ``nnunet``."""
    with pytest.MonkeyPatch.context() as environment:
        _set_folders(environment, root, results)
        yield environment


def _set_folders(environment: pytest.MonkeyPatch, root: Path, results: Path) -> None:
    folders = {
        "nnUNet_raw": root / "raw",
        "nnUNet_preprocessed": root / "preprocessed",
        "nnUNet_results": results,
    }
    for name, value in {**folders, **toy.SETTINGS}.items():
        environment.setenv(name, str(value))
