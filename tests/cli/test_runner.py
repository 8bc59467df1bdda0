"""The frame of every command: exit codes, one message for an error, terminals of all kinds."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from nnunet_3dct.cli.runner import SPINS, run_command
from nnunet_3dct.errors import ImageError, SettingsError

ASCII_TERMINAL = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


def run(work: Callable[[argparse.Namespace], int | None], *argv: str) -> int:
    """Exit code of a command that does ``work``."""
    try:
        run_command(argparse.ArgumentParser(prog="nnUNet3DCT_test"), work, argv)
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code
    return 0


def fails(error: BaseException) -> Callable[[argparse.Namespace], None]:
    def work(args: argparse.Namespace) -> None:
        raise error

    return work


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1), (2, 2)])
def test_exit_code_is_what_the_work_returns(result: int | None, code: int) -> None:
    assert run(lambda args: result) == code


def test_work_gets_the_flags_that_every_command_knows() -> None:
    seen: list[argparse.Namespace] = []
    run(lambda args: seen.append(args), "--verbose", "--disable_progress_bar")
    run(lambda args: seen.append(args))
    assert [(args.verbose, args.disable_progress_bar) for args in seen] == [(True, True), (False, False)]


def test_wrong_use_is_2_and_the_work_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails(AssertionError("was done")), "--unknown") == 2
    assert "--unknown" in capsys.readouterr().err


@pytest.mark.parametrize("error", [SettingsError("-d 7: no such dataset."), ImageError("case_1: truncated.")])
def test_error_of_ours_is_2_and_its_message_alone(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails(error)) == 2
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_unexpected_error_is_one_line_that_tells_how_to_learn_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails(KeyError("spacing"))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unexpected KeyError: 'spacing'.") and "--verbose" in line


def test_unexpected_error_without_a_message_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails(MemoryError())) == 2
    assert "unexpected MemoryError: no message" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("spacing"), ImageError("case_1: truncated.")])
def test_verbose_shows_where_an_error_came_from_and_what_caused_it(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    error.__cause__ = OSError("disk on fire")
    assert run(fails(error), "--verbose") == 2
    err = capsys.readouterr().err
    assert err.count("Traceback (most recent call last)") == 1 or "direct cause" in err
    assert "disk on fire" in err and "in work" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_interruption_is_130_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


PIPED = """
import argparse
from nnunet_3dct.cli.runner import run_command
def work(args):
    for n in range({lines}):
        print("line", n)
run_command(argparse.ArgumentParser(), work, [])
"""


@pytest.mark.skipif(os.name != "posix", reason="a pipe of a POSIX shell")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [2, 100_000])
def test_reader_that_leaves_early_is_no_error(lines: int, unbuffered: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PIPED.format(lines=lines)],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        if lines > 2:
            process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_broken_pipe_of_a_worker_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails(BrokenPipeError("worker has died"))) == 2
    assert "unexpected BrokenPipeError: worker has died" in capsys.readouterr().err


TOLD = """
import argparse
from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.errors import SettingsError
def work(args):
    print("\\u03bb \\u00d7 \\u2013")
    raise SettingsError("Fall \\u00e4 \\u2192 \\U0001f9e0")
run_command(argparse.ArgumentParser(description="\\u03bb"), work, {argv})
"""


@pytest.mark.parametrize(("argv", "code"), [([], 2), (["--help"], 0)])
def test_what_a_terminal_cannot_show_is_replaced(argv: list[str], code: int) -> None:
    environment = {**os.environ, **ASCII_TERMINAL}
    done = subprocess.run(
        [sys.executable, "-c", TOLD.format(argv=argv)], env=environment, capture_output=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert rb"\u03bb" in done.stdout
    assert code == 0 or rb"error: Fall \xe4 \u2192 \U0001f9e0" in done.stderr


WAITING = """
import argparse, os, subprocess, sys
from nnunet_3dct.cli.runner import run_command
def work(args):
    assert "torch" not in sys.modules
    subprocess.run([sys.executable, "-c", "import os; print(os.environ.get('GOMP_SPINCOUNT'))"], check=True)
run_command(argparse.ArgumentParser(), work, [])
"""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
    ids=["default", "spins of the user", "policy of the user"],
)
def test_threads_of_a_command_and_of_its_children_sleep_soon_unless_the_user_says_otherwise(
    variables: dict[str, str], expected: str
) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", WAITING], env={**clean, **variables}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
