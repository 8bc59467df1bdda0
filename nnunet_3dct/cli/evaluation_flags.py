"""Flags that the evaluation commands share, with one meaning in each."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from nnunet_3dct.errors import OutputError


def add_num_processes(parser: argparse.ArgumentParser) -> None:
    """``-np``: nnU-Net's number of processes, here threads that each compare a case."""
    from nnunet_3dct.upstream import default_num_processes

    parser.add_argument("-np", type=_at_least(1), default=default_num_processes, metavar="N",
                        help="cases compared at the same time. Default: %(default)s")  # fmt: skip


def add_tolerance(parser: argparse.ArgumentParser) -> None:
    """``--tolerance``."""
    parser.add_argument("--tolerance", type=float, default=2.0, metavar="MM",
                        help="of the surface Dice. Default: %(default)s mm")  # fmt: skip


def add_bootstrap(parser: argparse.ArgumentParser, lowest: int = 0) -> None:
    """``--bootstrap`` and ``--seed``; ``lowest`` is the smallest number of resamples."""
    least = f"at least {lowest}" if lowest else "0 for none"
    parser.add_argument("--bootstrap", type=_at_least(lowest), default=2000, metavar="N",
                        help=f"resamples for the intervals, {least}. Default: %(default)s")  # fmt: skip
    parser.add_argument("--seed", type=_at_least(0), default=0, help="of the resamples. Default: %(default)s")


def add_class_names(parser: argparse.ArgumentParser) -> None:
    """``--class-names``."""
    parser.add_argument("--class-names", nargs="+", metavar="NAME", help="names of the classes 0, 1, ...")


def add_chill(parser: argparse.ArgumentParser) -> None:
    """``--chill``, as nnU-Net has it."""
    parser.add_argument("--chill", action="store_true", help="accept references that have no prediction")


def add_compare(parser: argparse.ArgumentParser, tests: str) -> None:
    """``--compare``; ``tests`` says what is computed."""
    parser.add_argument("--compare", type=Path, metavar="FOLDER",
                        help=f"a second folder with predictions of the same cases: {tests}")  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")


@contextlib.contextmanager
def advice_on_output() -> Iterator[None]:
    """Add to the message about a file that cannot be written which flag names another one."""
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error} Give another file with -o.") from error


def _at_least(lowest: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"expected at least {lowest}, found {value}")
        return value

    convert.__name__ = "number"  # argparse names it for what is no number
    return convert
