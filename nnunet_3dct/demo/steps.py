"""Runs the workflow's commands one after the other, tells how far each is, and keeps their output."""

from __future__ import annotations

import os
import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from nnunet_3dct.errors import NNUNet3DCTError

LOOK_EVERY = 1.0  # seconds without output after which the state is told all the same
CARRIED = 400  # bytes of earlier output that are looked at again
TRAINING_SHARE, VALIDATION = 0.95, 0.97  # of a training step: until its last epoch ends, and when it validates
_COUNT = re.compile(rb"\b(\d+)/(\d+)\b")
_EPOCH = re.compile(rb": Epoch (\d+)\b(?!/)")  # nnU-Net's, from 0; "Epoch 3/4" in a trainer's own lines counts from 1
_VALIDATION = re.compile(rb": predicting ")


@dataclass(frozen=True)
class Step:
    """One command of the workflow.

    Attributes:
        name: key in ``summary.json``.
        title: for the reader.
        command: program and arguments.
        variables: environment variables for this command alone.
        epochs: for training commands, how many epochs there will be.
    """

    name: str
    title: str
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    epochs: int = 0

    @property
    def command_line(self) -> str:
        """What a user types."""
        exports = "".join(f"{name}={shlex.quote(value)} " for name, value in self.variables.items())
        return exports + shlex.join(self.command)


@dataclass(frozen=True)
class StepState:
    """How far a step is.

    Attributes:
        step: which.
        seconds: since it began.
        fraction: done, from 0 to 1.
        detail: the epoch or the cases that its output speaks of, empty if it speaks of none.
        ended: whether it is done.
    """

    step: Step
    seconds: float
    fraction: float = 0.0
    detail: str = ""
    ended: bool = False

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the time that the fraction took; None at the beginning."""
        return self.seconds * (1 - self.fraction) / self.fraction if self.fraction else None


Tell = Callable[[StepState], None]


def run_step(step: Step, log_folder: Path, tell: Tell, variables: Mapping[str, str] | None = None) -> float:
    """Run a command with its output in ``<log_folder>/<name>.log``.

    Args:
        step: what to run.
        log_folder: made if it does not exist.
        tell: called at the beginning, about every second, and at the end.
        variables: environment variables for the command, None for those of the step alone.

    Returns:
        Seconds.

    Raises:
        NNUNet3DCTError: the command failed; holds the end of its output.
    """
    log_folder.mkdir(parents=True, exist_ok=True)
    log = log_folder / f"{step.name}.log"
    start = time.perf_counter()
    state = StepState(step, 0.0)
    tell(state)
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            step.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(variables or {}), **step.variables, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        assert process.stdout is not None
        chunks, recent = _read_aside(process.stdout), b""
        while (chunk := _next(chunks)) is not None:
            stream.write(chunk)
            stream.flush()
            recent = (recent + chunk)[-CARRIED:]  # a line may come in pieces
            fraction, detail = _progress(_whole_words(recent), step.epochs) or (0.0, "")
            seconds = time.perf_counter() - start
            state = StepState(step, seconds, max(fraction, state.fraction), detail or state.detail)
            tell(state)
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        tail = log.read_bytes()[-3000:].decode(errors="replace")
        raise NNUNet3DCTError(
            f"Step {step.name} failed with exit code {process.returncode}; its output is in {log} "
            f"and ends with:\n{tail}"
        )
    tell(StepState(step, seconds, 1.0, state.detail, ended=True))
    return seconds


def _read_aside(stream: IO[bytes]) -> queue.SimpleQueue[bytes | None]:
    """Read in a thread, since reading a pipe cannot be given up after a second; None ends it."""
    chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        while chunk := os.read(stream.fileno(), 65536):
            chunks.put(chunk)
        chunks.put(None)

    threading.Thread(target=read, daemon=True).start()
    return chunks


def _next(chunks: queue.SimpleQueue[bytes | None]) -> bytes | None:
    """The next piece of output, empty after a second without any, None at its end."""
    try:
        return chunks.get(timeout=LOOK_EVERY)
    except queue.Empty:
        return b""


def _whole_words(output: bytes) -> bytes:
    """``output`` without its last word, which may go on."""
    return output[: max(output.rfind(separator) for separator in (b" ", b"\n", b"\r")) + 1]


def _progress(output: bytes, epochs: int) -> tuple[float, str] | None:
    """How much of the step the output speaks of, from 0 to 1, and in words."""
    if epochs:
        if _VALIDATION.search(output):
            return VALIDATION, "validation"
        numbers = _EPOCH.findall(output)
        if not numbers:
            return None
        return TRAINING_SHARE * int(numbers[-1]) / epochs, f"epoch {int(numbers[-1]) + 1} of {epochs}"
    counts = [(int(n), int(total)) for n, total in _COUNT.findall(output) if int(total) > 1]
    if not counts:
        return None
    done, total = counts[-1]
    return min(done / total, 1.0), f"{done} of {total}"


def program(name: str) -> str:
    """A console script of the running interpreter's environment, else the one on the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name
