"""Runs the workflow's commands one after the other, shows how far each is, and keeps their output."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nnunet_3dct.errors import NNUNet3DCTError

_COUNT = re.compile(rb"\b(\d+)/(\d+)\b")
_EPOCH = re.compile(rb": Epoch (\d+)\b")
_VALIDATION = re.compile(rb": predicting ")


@dataclass(frozen=True)
class Step:
    """One command of the workflow.

    Attributes:
        name: key in ``summary.json``.
        title: shown on the terminal.
        command: program and arguments.
        variables: environment variables for this command alone.
        epochs: for training commands, how many epochs there will be.
    """

    name: str
    title: str
    command: Sequence[str]
    variables: Mapping[str, str]
    epochs: int = 0


def run_step(step: Step, log_folder: Path) -> float:
    """Run a command with its output in ``<log_folder>/<name>.log``.

    Returns:
        Seconds.

    Raises:
        NNUNet3DCTError: the command failed; holds the end of its output.
    """
    log_folder.mkdir(parents=True, exist_ok=True)
    log = log_folder / f"{step.name}.log"
    exports = "".join(f"{name}={shlex.quote(value)} " for name, value in step.variables.items())
    tqdm.write(f"\n{step.title}\n  $ {exports}{shlex.join(step.command)}")
    start = time.perf_counter()
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            step.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **step.variables, "PYTHONUNBUFFERED": "1"},
        ) as process,
        tqdm(total=1.0, desc="  ", bar_format="{desc}{percentage:3.0f}%|{bar:30}| {elapsed}", leave=False,
             disable=None) as bar,
    ):  # fmt: skip
        assert process.stdout is not None
        while chunk := process.stdout.read1(65536):  # type: ignore[attr-defined]
            stream.write(chunk)
            stream.flush()
            fraction = _progress(chunk, step.epochs)
            if fraction is not None and fraction > bar.n:
                bar.n = fraction
            bar.refresh()
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        tail = log.read_bytes()[-3000:].decode(errors="replace")
        raise NNUNet3DCTError(
            f"Step {step.name} failed with exit code {process.returncode}; its output is in {log} "
            f"and ends with:\n{tail}"
        )
    tqdm.write(f"  done in {seconds:.0f} s")
    return seconds


def _progress(chunk: bytes, epochs: int) -> float | None:
    """How much of the step the output speaks of, from 0 to 1."""
    if epochs:
        if _VALIDATION.search(chunk):
            return 0.97
        found = _EPOCH.findall(chunk)
        return 0.95 * int(found[-1]) / epochs if found else None
    counts = [(int(n), int(total)) for n, total in _COUNT.findall(chunk) if int(total) > 1]
    return min(counts[-1][0] / counts[-1][1], 1.0) if counts else None


def program(name: str) -> str:
    """A console script of the running interpreter's environment, else the one on the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name
