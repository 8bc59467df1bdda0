"""What every command shares: arguments, messages, exit codes.

Exit codes: 0, done; 1, some cases failed or a check found something; 2, wrong use or missing input, nothing done;
130, interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from nnunet_3dct.errors import NNUNet3DCTError

DONE, SOME_FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
SPINS = "1000"


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that every command knows and that mean the same in each."""
    parser.add_argument("--verbose", action="store_true", help="say more; after an error also where it came from")
    parser.add_argument("--disable_progress_bar", action="store_true", help="for logs and batch systems")


def run_command(
    parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], int | None], argv: Sequence[str] | None
) -> None:
    """Parse the arguments, do the work and end the process with its exit code.

    An error is told in one message on standard error, with a traceback only under ``--verbose``.

    Args:
        parser: of the command; :func:`add_common_flags` is applied to it here.
        work: gets the arguments and returns an exit code, None for 0.
        argv: arguments, by default those of the process.

    Raises:
        SystemExit: with the exit code, unless that is 0.
    """
    _tolerate_narrow_terminals()
    _share_cores()
    add_common_flags(parser)
    args = parser.parse_args(argv)
    code = _attempt(work, args)
    if code:
        sys.exit(code)


def _attempt(work: Callable[[argparse.Namespace], int | None], args: argparse.Namespace) -> int:
    try:
        code = work(args) or DONE
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except NNUNet3DCTError as error:
        _tell(str(error), args.verbose)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return DONE
        reason = str(error) or "no message"
        more = "" if args.verbose else " Run it again with --verbose to see where it came from."
        _tell(f"unexpected {type(error).__name__}: {reason}.{more}", args.verbose)
    return WRONG_USE


def _tell(message: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)


def _reader_has_gone() -> bool:
    """Whether nobody reads standard output any more, as after ``| head``; what is left for it is then dropped."""
    try:
        print(flush=True)  # a flush alone does not fail twice
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False


def _share_cores() -> None:
    """Let OpenMP threads sleep soon when they have nothing to do; for this process and those that it starts.

    Threads that wait by spinning take the core from whoever would use it. ``benchmarks/waiting.py`` measures what that
    costs. Has to come before torch is imported; what the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _tolerate_narrow_terminals() -> None:
    """Print a replacement for what the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # pytest and notebooks put other objects there
            reconfigure(errors="backslashreplace")
