"""What is installed where: our files stand beside nnU-Net's, never in their place."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

import nnunetv2

REPOSITORY = Path(__file__).parents[1]
UPSTREAM = Path(nnunetv2.__file__).parent


def test_no_init_file_makes_our_folder_shadow_nnunet() -> None:
    own = {path.parent.relative_to(REPOSITORY / "nnunetv2") for path in REPOSITORY.glob("nnunetv2/**/__init__.py")}
    assert own == {Path("training/nnUNetTrainer/variants/multi_task")}


def test_import_from_the_repository_root_gives_the_installed_nnunet() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import nnunetv2; print(nnunetv2.__file__)"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert Path(found).parent == UPSTREAM != REPOSITORY / "nnunetv2"


def test_no_installed_file_is_claimed_by_both_packages() -> None:
    ours = {str(path) for path in files("nnunet-3dct") or []}
    theirs = {str(path) for path in files("nnunetv2") or []}
    assert any(path.startswith("nnunetv2/") for path in ours)
    assert not ours & theirs


@pytest.mark.parametrize("source", sorted((REPOSITORY / "nnunetv2").rglob("*.py")), ids=lambda path: path.stem)
def test_files_at_nnunets_paths_are_thin_and_installed_as_they_are(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= 40
    installed = UPSTREAM / source.relative_to(REPOSITORY / "nnunetv2")
    assert installed.read_text() == source.read_text(), "run pip install -e . again"


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainer_CLSHeadSum",
        "nnUNetTrainer_CLSHeadSumFT",
        "nnUNetTrainer_CLSHeadSimple",
        "nnUNetTrainer_CLSHeadSepOpt",
        "nnUNetTrainer_CLSHeadMA",
        "nnUNetTrainer_CLSHeadLesion",
        "nnUNetTrainer_Stage1",
        "nnUNetTrainer",
        "nnUNetTrainer_5epochs",
    ],
)
def test_trainer_is_found_by_nnunets_own_search(name: str) -> None:
    assert recursive_find_trainer_class_by_name(name).__name__ == name


@pytest.mark.parametrize("script", ["train.sh", "inf.sh", "eval.sh", "benchmarks/hippocampus.sh"])
def test_script_explains_itself_and_refuses_unknown_arguments(script: str) -> None:
    path = REPOSITORY / script
    helped = subprocess.run(["bash", path, "--help"], capture_output=True, text=True, check=True)
    assert "Usage" in helped.stdout
    refused = subprocess.run(["bash", path, "--nonsense", "more"], capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "Usage" in refused.stderr
    assert "set -euo pipefail" in path.read_text()
