"""``nnUNet3DCT_demo``: the whole workflow on the phantom, in minutes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_3dct.cli.runner import run_command

if TYPE_CHECKING:
    from nnunet_3dct.demo.steps import StepState
    from nnunet_3dct.demo.workflow import DemoSummary

LINE_EVERY = 30.0  # seconds, where the output is no terminal
_ROWS = (
    ("whole-pancreas Dice", "whole_pancreas_dice"),
    ("pancreas Dice", "pancreas_dice"),
    ("lesion Dice", "lesion_dice"),
    ("macro-F1 of the subtype", "macro_f1"),
    ("accuracy of the subtype", "accuracy"),
)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog="nnUNet3DCT_demo", description=__doc__)
    parser.add_argument("-o", "--output", dest="o", type=Path, default=Path("demo"), metavar="FOLDER",
                        help="folder of the demo; default: demo")  # fmt: skip
    parser.add_argument("--cases", type=int, help="training cases of the phantom")
    parser.add_argument("--val", type=int, help="held-out cases of the phantom")
    parser.add_argument("--seed", type=int, help="of the phantom and of the trainings. Default: 0")
    parser.add_argument("--difficulty", choices=["easy", "hard"])
    parser.add_argument("-device", choices=["cpu", "cuda", "mps"], help="default: cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo and print one table."""
    run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    from nnunet_3dct.demo.pictures import OVERVIEW
    from nnunet_3dct.demo.workflow import PICTURES, REPORT, SUMMARY, DemoPlan, run_demo

    start = time.perf_counter()
    folder = args.o.resolve()
    names = ("cases", "val", "seed", "difficulty", "device")
    chosen = {name: value for name in names if (value := getattr(args, name)) is not None}
    summary = run_demo(folder, DemoPlan(**chosen), StepTeller(not args.disable_progress_bar))
    print(format_table(summary, time.perf_counter() - start))
    files = {
        "summary": folder / SUMMARY,
        "predictions": folder / "predictions",
        "pictures": folder / PICTURES / OVERVIEW,
        "report": folder / REPORT,
    }
    print("\n" + "\n".join(f"{name + ':':13}{path}" for name, path in files.items()))


class StepTeller:
    """Says how far the steps are: with a bar in a terminal, else in a line every half minute.

    Args:
        bar: whether a bar is wanted in a terminal.
        line_every: seconds between two lines.
    """

    def __init__(self, bar: bool = True, line_every: float = LINE_EVERY) -> None:
        self.line_every = line_every
        self._wants_bar = bar and sys.stderr.isatty()
        self._bar: Any = None
        self._last_line = 0.0
        self._step = ""

    def __call__(self, state: StepState) -> None:
        if state.step.name != self._step:
            self._begin(state)
        elif state.ended:
            self._end(state)
        elif self._bar is not None:
            self._bar.n = state.fraction
            self._bar.refresh()
        elif state.seconds - self._last_line >= self.line_every:
            self._last_line = state.seconds
            print(progress_line(state), flush=True)

    def _begin(self, state: StepState) -> None:
        self._step, self._last_line = state.step.name, 0.0
        print(f"\n{state.step.title}\n  $ {state.step.command_line}", flush=True)
        if self._wants_bar:
            from tqdm import tqdm

            form = "{desc}{percentage:3.0f}%|{bar:30}| {elapsed}"
            self._bar = tqdm(total=1.0, desc="  ", bar_format=form, leave=False)

    def _end(self, state: StepState) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        print(f"  done in {state.seconds:.0f} s", flush=True)


def progress_line(state: StepState) -> str:
    """``  stage_1: epoch 3 of 6, 1 min 30 s, about 2 min left``."""
    parts = [*([state.detail] if state.detail else []), duration(state.seconds)]
    if state.seconds_left is not None:
        parts.append(f"about {duration(state.seconds_left)} left")
    return f"  {state.step.name}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Minutes and seconds in words."""
    minutes, rest = divmod(round(seconds), 60)
    return " ".join([*([f"{minutes} min"] if minutes else []), *([f"{rest} s"] if rest or not minutes else [])])


def format_table(summary: DemoSummary, total: float) -> str:
    """The closing table: scores, then the time of each step in seconds."""
    low, high = summary["macro_f1_interval"]
    lines = ["", f"{'held-out cases':28}{summary['n_cases']:8d}"]
    scores: dict[str, Any] = {**summary}
    for title, key in _ROWS:
        interval = f"   95 % interval {low:.2f} to {high:.2f}" if key == "macro_f1" else ""
        lines.append(f"{title:28}{scores[key]:8.3f}{interval}")
    lines += ["", f"{'step':28}{'seconds':>8}"]
    lines += [f"{name.replace('_', ' '):28}{seconds:8.0f}" for name, seconds in summary["seconds"].items()]
    lines.append(f"{'all steps':28}{total:8.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
