"""How far a training is, where no terminal is there to show a bar."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_3dct.training import progress
from nnunet_3dct.training.progress import EpochProgress, duration
from tests import toy


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def said(epoch_seconds: float | None = None) -> list[str]:
    """Lines of the second of four epochs of ten iterations of eight seconds."""
    clock, lines = Clock(), []
    shown = EpochProgress(1, 4, 10, lines.append, epoch_seconds, clock=clock)
    for _ in range(10):
        clock.now += 8
        shown.step()
    shown.close()
    return lines


def test_a_line_every_half_minute_names_epoch_iteration_and_time_left() -> None:
    assert said() == [
        "Epoch 2/4: 4 of 10 iterations, about 3 min left".replace("3 min", duration(6 * 8 + 2 * 80)),
        "Epoch 2/4: 8 of 10 iterations, about 3 min left",
    ]


def test_time_left_knows_what_an_epoch_takes_with_its_validation() -> None:
    assert said(3600.0)[0].endswith("about 2 h 01 min left")


def test_short_epochs_say_nothing() -> None:
    clock, lines = Clock(), []
    shown = EpochProgress(0, 2, 3, lines.append, clock=clock)
    for _ in range(3):
        shown.step()
    assert lines == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (3599, "1 h 00 min"), (11100, "3 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_training_in_a_pipe_logs_lines(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.EpochProgress.__init__, "__defaults__", (None, 0.0, Clock()))
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadSum")
    trainer.run_training()
    log = Path(trainer.log_file).read_text()
    assert log.count("Epoch 1/2: ") == log.count("Epoch 2/2: ") == 2
    assert "Epoch 2/2: 2 of 2 iterations, about 0 s left" in log
