"""``nnUNet3DCT_check``: is the installation sound, and a dataset?"""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from nnunet_3dct.cli.runner import DONE, SOME_FAILED, run_command
from nnunet_3dct.errors import SettingsError

if TYPE_CHECKING:
    from nnunet_3dct.data.installation import Finding


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line a check; the exit code is 1 when one of them failed."""
    run_command(_parser(), _check, argv)


def _check(args: argparse.Namespace) -> int:
    from nnunet_3dct.data.installation import check_installation

    settings, num_classes = _check_settings()
    print("Installation")
    findings = [*check_installation(), settings]
    for finding in findings:
        print(_line(finding))
    problems = sum(not finding.ok for finding in findings)
    if args.d is not None:
        problems += _report_dataset(args, num_classes)
    print(f"\nFAILED: {problems} problem(s) found" if problems else "\nAll checks passed")
    return SOME_FAILED if problems else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_check",
        description="Check the installation and, with -d, a raw dataset with its class labels and splits. "
        "Every problem is listed; the exit code is 1 when there is one, 2 when there is no such dataset.",
    )
    parser.add_argument("-d", metavar="DATASET", help="name or id of a dataset in nnUNet_raw, or its folder")
    parser.add_argument(
        "-np",
        type=int,
        metavar="N",
        help="cases checked side by side (default: nnU-Net's, at most one a CPU)",
    )
    return parser


def _check_settings() -> tuple[Finding, int | None]:
    """The variables of a training run, and the number of classes that they ask for."""
    from nnunet_3dct.data.installation import Finding
    from nnunet_3dct.settings import Settings

    name = "NNUNETV2_* variables"
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        return Finding(name, False, str(error)), None
    return Finding(name, True, "valid"), settings.num_cls


def _report_dataset(args: argparse.Namespace, num_classes: int | None) -> int:
    """Print the state of a dataset; returns the number of problems."""
    from tqdm import tqdm

    from nnunet_3dct.data.checks.dataset import check_dataset
    from nnunet_3dct.paths import find_raw_dataset
    from nnunet_3dct.upstream import default_num_processes

    folder = find_raw_dataset(args.d)
    print(f"\nDataset {folder}")
    result = check_dataset(
        folder,
        args.np or min(default_num_processes, os.cpu_count() or 1),
        num_classes=num_classes,
        progress=partial(tqdm, desc="cases", leave=False, delay=1, disable=args.disable_progress_bar or None),
    )
    if result.ok:
        print("  ok    images, labels and classes")
    for state, lines in (("read", result.read), ("note", result.notes), ("FAIL", result.problems)):
        for line in lines:
            print(_indented(f"{state:<4}  {line}"))
    return len(result.problems)


def _line(finding: Finding) -> str:
    state = "FAIL" if not finding.ok else "note" if finding.warning else "ok"
    return _indented(f"{state:<4}  {finding.name}: {finding.message}")


def _indented(text: str) -> str:
    """First line two columns in, further lines below the text."""
    first, *rest = text.splitlines()
    return "\n".join([f"  {first}", *(textwrap.indent(line.strip(), " " * 8) for line in rest)])


if __name__ == "__main__":
    main()
