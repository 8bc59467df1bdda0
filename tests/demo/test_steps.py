"""Steps of the demo with stub commands: output kept, progress told, failures with the end of their output."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from nnunet_3dct.cli.demo import StepTeller, duration, progress_line
from nnunet_3dct.demo.steps import Step, StepState, run_step
from nnunet_3dct.errors import NNUNet3DCTError

TRAINING = """
import sys, time
for epoch in range(4):
    for piece in ("2026-11-25 10:00:00.000000:", " ", f"Epoch {epoch}", "\\n"):  # as print does without a buffer
        print(piece, end="", flush=True)
        time.sleep(0.1)
    print(f"2026-11-25 10:00:01.000000: Epoch {epoch + 1}/4: 3 of 9 iterations, about 2 s left", flush=True)
print("2026-11-25 10:00:00.000000: predicting case_0", flush=True)
time.sleep(0.4)
"""


def step(code: str, epochs: int = 0, **variables: str) -> Step:
    return Step("stage_1", "3. Stage 1", [sys.executable, "-c", code], variables, epochs)


def states_of(command: Step, folder: Path) -> list[StepState]:
    states: list[StepState] = []
    run_step(command, folder, states.append)
    return states


def test_epochs_are_told_and_the_output_is_kept(tmp_path: Path) -> None:
    states = states_of(step(TRAINING, epochs=4), tmp_path / "logs")
    details = list(dict.fromkeys(state.detail for state in states))
    assert details == ["", "epoch 1 of 4", "epoch 2 of 4", "epoch 3 of 4", "epoch 4 of 4", "validation"]
    fractions = [state.fraction for state in states]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert [state.ended for state in states] == [False] * (len(states) - 1) + [True]
    assert (tmp_path / "logs" / "stage_1.log").read_text().count(": Epoch ") == 8


def test_counts_of_a_progress_bar_are_told(tmp_path: Path) -> None:
    states = states_of(step("print('cases:  25%| 3/12 [00:01<00:03]')"), tmp_path)
    assert ("3 of 12", 0.25) in [(state.detail, state.fraction) for state in states]


def test_a_count_that_comes_in_pieces_is_not_taken_for_a_smaller_one(tmp_path: Path) -> None:
    code = "import time; print('cases 3/1', end='', flush=True); time.sleep(0.3); print('20 [00:01]', flush=True)"
    assert {state.detail for state in states_of(step(code), tmp_path)} == {"", "3 of 120"}


def test_state_is_told_every_second_though_the_command_says_nothing(tmp_path: Path) -> None:
    states = states_of(step("import time; time.sleep(2.6)"), tmp_path)
    assert len(states) >= 4 and all(b.seconds > a.seconds for a, b in pairwise(states))


def test_variables_of_the_step_come_after_those_of_the_demo(tmp_path: Path) -> None:
    command = step("import os; print(os.environ['A'], os.environ['B'])", A="step")
    run_step(command, tmp_path, lambda _: None, {"A": "demo", "B": "demo"})
    assert (tmp_path / "stage_1.log").read_text().strip() == "step demo"
    assert command.command_line.startswith(f"A=step {sys.executable} -c ")


def test_failure_says_code_log_and_end_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(NNUNet3DCTError, match=r"(?s)stage_1 failed with exit code 3; .*stage_1\.log .*the reason"):
        states_of(step("import sys; print('the reason'); sys.exit(3)"), tmp_path)


def test_in_a_pipe_a_line_comes_every_interval_with_epoch_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_step(step(TRAINING, epochs=4), tmp_path, StepTeller(line_every=0.3))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "3. Stage 1" and lines[2].startswith("  $ ") and lines[-1].startswith("  done in ")
    told = [line for line in lines if line.startswith("  stage_1: ")]
    assert len(told) >= 3 and any(line.startswith("  stage_1: epoch 3 of 4, ") for line in told)
    assert all(line.endswith(" left") for line in told if re.search(r"epoch [2-4] |validation", line))
    assert "".join(lines).isascii()


def test_half_a_minute_passes_between_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    command = Step("stage_1", "3. Stage 1", ["train"], {}, 6)
    tell = StepTeller()
    for second in range(100):
        tell(StepState(command, float(second), second / 200, "epoch 2 of 6"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  stage_1: ")]
    assert lines == [
        "  stage_1: epoch 2 of 6, 30 s, about 2 min 50 s left",
        "  stage_1: epoch 2 of 6, 1 min, about 2 min 20 s left",
        "  stage_1: epoch 2 of 6, 1 min 30 s, about 1 min 50 s left",
    ]


def test_line_without_progress_says_how_long_it_has_taken() -> None:
    assert progress_line(StepState(Step("plan", "", []), 31.0)) == "  plan: 31 s"
    assert [duration(seconds) for seconds in (0, 59.6, 61, 120)] == ["0 s", "1 min", "1 min 1 s", "2 min"]
