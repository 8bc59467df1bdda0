"""A training where neither terminal nor files know more than ASCII."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_3dct.training import scheduled_trainer
from tests import toy

NARROW = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TRAIN = "from nnunetv2.run.run_training import run_training_entry as main; main()"


def test_training_with_its_last_fit_and_validation_runs_and_logs_in_ascii(
    nnunet: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNETV2_MT_SAMPLER", "balanced")
    trainer = "nnUNetTrainer_CLSHeadLesion"
    flags = [toy.DATASET, "3d_fullres", "0", "-tr", trainer, "-p", toy.PLANS, "-device", "cpu", "--npz"]
    environment = {**os.environ, **NARROW, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", TRAIN, *flags], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.isascii() and done.stderr.isascii()
    fold = toy.trained_folder(nnunet, trainer) / "fold_0"
    (log,) = fold.glob("training_log_*.txt")
    for words in (b"lambda = 0.3", b"macro-F1", b"Class labels: "):
        assert words in log.read_bytes()
    assert log.read_bytes().isascii()
    assert (fold / "validation" / "classification_metrics.json").is_file()


def test_names_beyond_ascii_are_spelled_in_codes(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled_trainer.locale, "getpreferredencoding", lambda _: "ascii")
    assert scheduled_trainer.printable("predicting Köln_001 \udcc3") == "predicting K\\xf6ln_001 \\udcc3"
    assert scheduled_trainer.printable("predicting case_001") == "predicting case_001"


def test_names_beyond_ascii_stay_where_they_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled_trainer.locale, "getpreferredencoding", lambda _: "utf-8")
    monkeypatch.setattr(scheduled_trainer.sys, "stdout", None)
    assert scheduled_trainer.printable("predicting Köln_001") == "predicting Köln_001"
