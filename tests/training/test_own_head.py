"""The page about heads of one's own: its code trains and predicts as written there, from one file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import toy

PAGE = Path(__file__).parents[2] / "docs" / "new-head.md"
TRAINER = "nnUNetTrainer_MaxHead"


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's file in the folder that it says."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "my_trainers").mkdir()
    path = tmp_path / "my_trainers" / "max_head.py"
    path.write_text(code[1])
    monkeypatch.setenv("nnUNet_extTrainer", str(path.parent))
    return path


ENTRIES = {
    "nnUNetv2_train": "from nnunetv2.run.run_training import run_training_entry as main",
    "nnUNet3DCT_predict": "from nnunet_3dct.cli.predict import main",
}


def run(command: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as a user runs it."""
    program = f"import sys; {ENTRIES[command]}; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *flags], capture_output=True, text=True, check=False)


def test_head_in_one_file_of_the_users_trains_and_predicts(
    own_file: Path, nnunet: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = run("nnUNetv2_train", toy.DATASET, "3d_fullres", "0", "-tr", TRAINER, "-p", toy.PLANS, "-device", "cpu")
    assert trained.returncode == 0, trained.stderr
    flags = ["-d", toy.DATASET, "-c", "3d_fullres", "-tr", TRAINER, "-p", toy.PLANS, "-f", "0", "-device", "cpu"]
    io = ["-i", str(images), "-o", str(tmp_path / "out"), "--disable_tta"]
    predicted = run("nnUNet3DCT_predict", *io, *flags)
    assert predicted.returncode == 0, predicted.stderr
    report = json.loads((tmp_path / "out" / "new_000_classification.json").read_text())
    assert len(report["probs"]) == 3

    monkeypatch.delenv("nnUNet_extTrainer")
    refused = run("nnUNet3DCT_predict", *io, *flags)
    assert refused.returncode == 2
    assert "'decoder_max' is not known here" in refused.stderr and "nnUNet_extTrainer" in refused.stderr
