"""``nnUNet3DCT_check``: is the installation sound, and a dataset?"""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_3dct.cli.runner import DONE, SOME_FAILED, run_command
from nnunet_3dct.errors import SettingsError

if TYPE_CHECKING:
    from nnunet_3dct.data.checks.dataset import DatasetCheck
    from nnunet_3dct.data.installation import Finding
    from nnunet_3dct.settings import Settings

STDOUT = "-"
Say = Callable[[str], None]


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line a check; the exit code is 1 when one of them failed."""
    run_command(_parser(), _check, argv)


def _check(args: argparse.Namespace) -> int:
    if args.d is None and (args.html is not None or args.json is not None):
        raise SettingsError("--html and --json: expected a dataset (-d), found none; they are about its cases.")
    say = _silent if args.json == STDOUT else print
    problems, settings = report_installation(say)
    if args.d is not None:
        problems += _report_dataset(args, settings, say)
    else:
        say("\nnnUNet3DCT_doctor says more of the machine: memory, disk, threads")
    say(f"\nFAILED: {problems} problem(s) found" if problems else "\nAll checks passed")
    return SOME_FAILED if problems else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_check",
        description="Check the installation and, with -d, a raw dataset: files, grids, orientation, intensities, "
        "labels, classes, splits, cases that leak between training and test, outliers, and what nnU-Net has planned "
        "for it. "
        "Every problem is listed; the exit code is 1 when there is one, 2 when there is no such dataset. Warnings may "
        "be meant and do not change it.",
    )
    parser.add_argument("-d", metavar="DATASET", help="name or id of a dataset in nnUNet_raw, or its folder")
    parser.add_argument(
        "-np",
        type=int,
        metavar="N",
        help="cases checked side by side (default: nnU-Net's, at most one a CPU)",
    )
    parser.add_argument(
        "--html",
        nargs="?",
        const="",
        metavar="FILE",
        help="write one page with everything that was found and a picture of every case that was named "
        "(default: <dataset>_check.html)",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="the same for machines; without FILE it is all that is printed",
    )
    return parser


def report_installation(say: Say = print) -> tuple[int, Settings | None]:
    """Print the state of the installation; returns the number of problems, and the variables of a training run."""
    from nnunet_3dct.data.installation import check_installation

    finding, settings = _check_settings()
    say("Installation")
    findings = [*check_installation(), finding]
    for finding in findings:
        say(line_of(finding))
    return sum(not finding.ok for finding in findings), settings


def _check_settings() -> tuple[Finding, Settings | None]:
    """The variables of a training run."""
    from nnunet_3dct.data.installation import Finding
    from nnunet_3dct.settings import Settings

    name = "NNUNETV2_* variables"
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        return Finding(name, False, str(error)), None
    return Finding(name, True, "valid"), settings


def _report_dataset(args: argparse.Namespace, settings: Settings | None, say: Say) -> int:
    """Print the state of a dataset and write what was asked for; returns the number of problems."""
    from tqdm import tqdm

    from nnunet_3dct.data.checks.dataset import check_dataset
    from nnunet_3dct.data.checks.summary import check_file
    from nnunet_3dct.formats.atomic import to_json, write_json
    from nnunet_3dct.paths import find_raw_dataset
    from nnunet_3dct.upstream import default_num_processes

    folder = find_raw_dataset(args.d)
    say(f"\nDataset {folder}")
    num_processes = args.np or min(default_num_processes, os.cpu_count() or 1)
    result = check_dataset(
        folder,
        num_processes,
        num_classes=settings.num_cls if settings else None,
        target_labels=settings.target_labels if settings else None,
        progress=partial(tqdm, desc="cases", leave=False, delay=1, disable=args.disable_progress_bar or None),
    )
    if result.ok:
        say("  ok    images, labels and classes")
    for state, lines in (
        ("read", result.read),
        ("note", result.notes),
        ("warn", result.warnings),
        ("FAIL", result.problems),
    ):
        for line in lines:
            say(_indented(f"{state:<4}  {line}"))
    if args.json == STDOUT:
        print(to_json(check_file(result)))
    elif args.json:
        write_json(check_file(result), Path(args.json))
    if args.html is not None:
        _write_page(result, Path(args.html or f"{folder.name}_check.html"), num_processes, say)
    return len(result.problems)


def _write_page(result: DatasetCheck, path: Path, num_processes: int, say: Say) -> None:
    from nnunet_3dct.report.dataset_page import write_dataset_page

    number = write_dataset_page(result, path, num_processes=num_processes)
    say(f"\n{path}: {len(result.findings)} findings, pictures of {number} cases")


def _silent(_: str) -> None:
    """In place of ``print``."""


def line_of(finding: Finding) -> str:
    """One line of a check of the installation."""
    state = "FAIL" if not finding.ok else "note" if finding.warning else "ok"
    return _indented(f"{state:<4}  {finding.name}: {finding.message}")


def _indented(text: str) -> str:
    """First line two columns in, further lines below the text."""
    first, *rest = text.splitlines()
    return "\n".join([f"  {first}", *(textwrap.indent(line.strip(), " " * 8) for line in rest)])


if __name__ == "__main__":
    main()
