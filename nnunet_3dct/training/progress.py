"""How far a training is: a bar on a terminal; elsewhere, as in a pipe or a batch system, a line every half minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

Say = Callable[[str], None]
HALF_MINUTE = 30.0


class Lines:
    """Says something at most every ``every`` seconds, for the first time after as long.

    Args:
        say: takes a line.
        every: seconds between two lines.
        clock: seconds from any start.
    """

    def __init__(self, say: Say, every: float = HALF_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        self.say = say
        self.every = every
        self.clock = clock
        self._last = clock()

    def offer(self, line: str) -> None:
        """Say it if it is time."""
        now = self.clock()
        if now - self._last >= self.every:
            self._last = now
            self.say(line)


class EpochProgress:
    """Iterations of one epoch, shown on standard error where that is a terminal, else said in lines.

    Args:
        epoch: of this training, from 0.
        epochs: in all.
        iterations: of an epoch.
        say: takes a line; None shows nothing at all, for all processes but one.
        epoch_seconds: what an epoch took so far, validation included; None in the first one.
        every, clock: see :class:`Lines`.
    """

    def __init__(
        self,
        epoch: int,
        epochs: int,
        iterations: int,
        say: Say | None,
        epoch_seconds: float | None = None,
        every: float = HALF_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"Epoch {epoch + 1}/{epochs}"
        self.iterations = iterations
        self.epochs_left = epochs - epoch - 1
        self.epoch_seconds = epoch_seconds
        self.done = 0
        self._clock, self._start = clock, clock()
        shown = say is not None and sys.stderr.isatty()
        self._bar = tqdm(total=iterations, desc=self.name, unit="it", leave=False) if shown else None
        self._lines = Lines(say, every, clock) if say is not None and not shown else None

    def step(self) -> None:
        """One more iteration is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
        if self._lines is not None:
            self._lines.offer(
                f"{self.name}: {self.done} of {self.iterations} iterations, about {duration(self.seconds_left())} left"
            )

    def seconds_left(self) -> float:
        """Until the last epoch ends, by the speed of this epoch and what earlier ones took in all."""
        one = (self._clock() - self._start) / max(self.done, 1)
        whole = self.epoch_seconds or one * self.iterations
        return one * (self.iterations - self.done) + whole * self.epochs_left

    def close(self) -> None:
        """The last iteration is done."""
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
