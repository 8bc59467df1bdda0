"""``nnUNet3DCT_doctor``: what it prints and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_3dct.cli import doctor
from nnunet_3dct.data.installation import Finding
from tests.data.checks.makers import write_ct_dataset


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_3dct.data.installation.check_installation", lambda: [Finding("torch", True, "1.0")])
    monkeypatch.setattr("nnunet_3dct.data.machine.check_machine", lambda location: [Finding("CUDA", True, "fine")])
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> int:
    try:
        doctor.main(list(arguments))
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        return stopped.code
    return 0


def test_prints_installation_and_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    output = capsys.readouterr().out
    assert "Installation\n  ok    torch: 1.0\n" in output and "Machine\n  ok    CUDA: fine\n" in output
    assert output.endswith("All checks passed\n")


def test_problem_of_the_machine_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nnunet_3dct.data.machine.check_machine", lambda location: [Finding("CUDA", False, "broken")])
    assert run() == 1
    assert "  FAIL  CUDA: broken" in capsys.readouterr().out


def test_plans_of_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_ct_dataset(tmp_path / "Dataset001_CT", training=2, validation=0, shape=(4, 8, 8))
    assert run("-d", str(folder)) == 0
    assert "Plans of Dataset001_CT\n  note  planned memory: Dataset001_CT has no plans yet" in capsys.readouterr().out


def test_unknown_dataset_is_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert run("-d", "Dataset007_No") == 2
