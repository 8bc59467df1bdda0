"""What holds for every command of ``[project.scripts]``."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nnunet_3dct.cli import runner
from tests.cli.test_runner import ASCII_TERMINAL

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[2]
SCRIPTS: dict[str, str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "scripts"
]
COMMANDS = sorted(SCRIPTS)
AT_NNUNETS_PATHS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for folder in ("evaluation", "inference")
    for path in (REPOSITORY / "nnunetv2" / folder).rglob("*.py")
)

# arguments with which each command finds its input missing; the name is not ASCII
MISSING = "fehlt_\u03bb"
WITHOUT_INPUT = {
    "nnUNet3DCT_phantom": ["-o", f"file_{MISSING}", "--cases", "3"],
    "nnUNet3DCT_convert": ["-i", MISSING, "-o", "Dataset001_New"],
    "nnUNet3DCT_check": ["-d", MISSING],
    "nnUNet3DCT_doctor": ["-d", MISSING],
    "nnUNet3DCT_splits": ["-d", MISSING],
    "nnUNet3DCT_probe": ["-d", MISSING],
    "nnUNet3DCT_fit_head": ["-d", MISSING],
    "nnUNet3DCT_predict": ["-i", MISSING, "-o", "out", "-d", MISSING, "-c", "3d_fullres"],
    "nnUNet3DCT_evaluate_classification": [MISSING, f"{MISSING}.json"],
    "nnUNet3DCT_evaluate_segmentation": [MISSING, MISSING, "-djfile", f"{MISSING}.json"],
    "nnUNet3DCT_evaluate_whole_organ": [MISSING, MISSING, "-djfile", f"{MISSING}.json"],
    "nnUNet3DCT_report": ["-p", MISSING, "-o", "report.html"],
    "nnUNet3DCT_crossval": ["-d", MISSING],
    "nnUNet3DCT_select": ["-d", MISSING],
    "nnUNet3DCT_calibrate": ["-d", MISSING],
    "nnUNet3DCT_demo": ["-o", f"file_{MISSING}"],
}


def call(command: str, *argv: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command as its script in ``bin`` does, in ``folder``."""
    module, _, function = SCRIPTS[command].partition(":")
    code = f"import sys; from {module} import {function}; sys.argv[0] = {command!r}; sys.exit({function}())"
    environment = {**os.environ, "PYTHONPATH": _path(), **variables}
    return subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=folder, env=environment, capture_output=True, check=False
    )


def _path() -> str:
    return os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nnU-Net's three, all empty, and a file where commands would want a folder."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / f"file_{MISSING}").touch()
    return tmp_path


def test_every_command_has_arguments_here() -> None:
    assert sorted(WITHOUT_INPUT) == COMMANDS


HELP = """
import importlib, sys
try:
    importlib.import_module({module!r}).main(["--help"])
except SystemExit as stop:
    assert not stop.code, stop.code
print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_common_flags_and_loads_no_torch(command: str) -> None:
    code = HELP.format(module=SCRIPTS[command].partition(":")[0])
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout
    assert "--verbose" in done.stdout and "--disable_progress_bar" in done.stdout
    assert done.stderr.splitlines()[-1] == "False", "torch was loaded"


@pytest.mark.parametrize("script", AT_NNUNETS_PATHS)
def test_script_at_nnunets_path_has_help(script: str) -> None:
    environment = {**os.environ, "PYTHONPATH": _path()}
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert "usage:" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_flag_is_2(command: str, folder: Path) -> None:
    done = call(command, *WITHOUT_INPUT[command], "--no_such_flag", folder=folder)
    assert done.returncode == 2
    assert b"--no_such_flag" in done.stderr and b"usage:" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_works_in_a_terminal_without_utf8(command: str, folder: Path) -> None:
    done = call(command, "--help", folder=folder, **ASCII_TERMINAL)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"usage:" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("terminal", [{}, ASCII_TERMINAL], ids=["utf8", "ascii"])
def test_missing_input_is_told_in_any_terminal(command: str, terminal: Mapping[str, str], folder: Path) -> None:
    done = call(command, *WITHOUT_INPUT[command], folder=folder, **terminal)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"unexpected" not in done.stderr
    told = done.stdout + done.stderr
    assert any(name in told for name in (MISSING.encode(), MISSING.encode("ascii", "backslashreplace"), b"fehlt_"))


def stand_in(work: Callable[[argparse.Namespace], int | None]) -> Callable[..., None]:
    """The runner, doing ``work`` instead of what the command asked it to do."""

    def run_command(parser: argparse.ArgumentParser, _: object, argv: Any) -> None:
        runner.run_command(parser, work, argv)

    return run_command


def exit_code(command: str, argv: list[str], work: Callable[[argparse.Namespace], int | None], monkeypatch: Any) -> int:
    module = importlib.import_module(SCRIPTS[command].partition(":")[0])
    monkeypatch.setattr(module, "run_command", stand_in(work))
    try:
        module.main(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flags", [[], ["--verbose"], ["--disable_progress_bar"]], ids=["plain", "verbose", "no_bar"])
def test_unexpected_error_has_a_traceback_with_verbose_alone(
    command: str, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(args: argparse.Namespace) -> None:
        raise RuntimeError("boom")

    assert exit_code(command, [*WITHOUT_INPUT[command], *flags], work, monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: unexpected RuntimeError: boom.")
    assert ("Traceback" in err) == (flags == ["--verbose"])
    assert flags == ["--verbose"] or len(err.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_is_130(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def work(args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    assert exit_code(command, WITHOUT_INPUT[command], work, monkeypatch) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.skipif(os.name != "posix", reason="signals of a POSIX terminal")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_in_a_terminal_ends_a_command_and_its_workers_without_a_traceback(
    processes: str, tmp_path: Path
) -> None:
    arguments = ["-o", str(tmp_path / "Dataset001_Many"), "--cases", "200", "-np", processes]
    process = subprocess.Popen(
        [sys.executable, "-m", "nnunet_3dct.cli.phantom", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    limit = time.monotonic() + 120
    while not list(tmp_path.glob(".*/imagesTr/*.nii.gz")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"Traceback" not in err and err.endswith(b"interrupted\n")
    assert not list(tmp_path.iterdir())
