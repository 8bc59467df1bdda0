"""Cases converted side by side, with a journal, so that a run that was killed goes on where it was."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from nnunet_3dct.data.convert.case import TEMPORARY
from nnunet_3dct.errors import OutputError

Progress = Callable[[int, int], object]
Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], num_processes: int, progress: Progress | None = None
) -> Iterator[Result]:
    """Results of ``work``, as they come.

    Raises:
        OutputError: a process was ended from outside, as by a system that has run out of memory.
    """
    results = map(work, jobs) if num_processes <= 1 or len(jobs) <= 1 else _side_by_side(work, jobs, num_processes)
    for done, result in enumerate(results, start=1):
        yield result
        if progress is not None:
            progress(done, len(jobs))


def _side_by_side(work: Callable[[Job], Result], jobs: Sequence[Job], num_processes: int) -> Iterator[Result]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_processes, len(jobs)), spawn, initializer=_begin_process) as pool:
        try:
            for done in as_completed([pool.submit(work, job) for job in jobs]):
                yield done.result()
        except BrokenProcessPool as error:
            raise OutputError(
                "A process that converts was ended from outside, as by a system without memory. Start again with fewer "
                "processes; what is finished is kept."
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def remove_temporary(folder: Path) -> None:
    """Remove what a run that was killed has left: half files and folders of its own, all of them hidden."""
    for pattern in (f"{TEMPORARY}*", f"*/{TEMPORARY}*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("*/.*.tmp"):
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _begin_process() -> None:
    """Leave Ctrl-C to the parent, as it reaches every process at once, and end when the parent has been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
