"""Tables on the command line: as wide as the terminal, plain text where the output is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

PIPED_WIDTH = 200


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table, the first column to the left, the others to the right.

    In a terminal long cells are folded so that a line fits; a pipe or a file gets whole lines without colour or
    ruling.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    made = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, show_edge=False)
    for n, name in enumerate(header):
        made.add_column(name, justify="left" if n == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    console = Console(width=None if terminal else PIPED_WIDTH, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """``value`` with ``digits`` decimals, a dash for None."""
    return "-" if value is None else f"{value:{sign}.{digits}f}"
