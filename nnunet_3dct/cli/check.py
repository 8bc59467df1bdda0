"""``nnUNet3DCT_check``: is the installation sound, and a dataset?"""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_3dct.errors import SettingsError

if TYPE_CHECKING:
    from nnunet_3dct.data.installation import Finding


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line a check; the exit code is 1 when one of them failed."""
    args = _parser().parse_args(argv)
    from nnunet_3dct.data.installation import check_installation

    settings, num_classes = _check_settings()
    print("Installation")
    findings = [*check_installation(), settings]
    for finding in findings:
        print(_line(finding))
    problems = sum(not finding.ok for finding in findings)

    if args.d is not None:
        problems += _report_dataset(args.d, args.np, num_classes)
    print(f"\nFAILED: {problems} problem(s) found" if problems else "\nAll checks passed")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_check",
        description="Check the installation and, with -d, a raw dataset with its class labels. "
        "Every problem is listed; the exit code is 1 when there is one.",
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


def _report_dataset(dataset: str, num_processes: int | None, num_classes: int | None) -> int:
    """Print the state of a dataset; returns the number of problems."""
    from tqdm import tqdm

    from nnunet_3dct.data.dataset_check import check_dataset
    from nnunet_3dct.upstream import default_num_processes, nnUNet_preprocessed

    try:
        folder = _dataset_folder(dataset)
    except (ValueError, RuntimeError) as error:
        print(f"\nDataset {dataset}\n" + _indented(f"FAIL  {error}"))
        return 1
    print(f"\nDataset {folder}")
    result = check_dataset(
        folder,
        num_processes or min(default_num_processes, os.cpu_count() or 1),
        label_folders=[Path(nnUNet_preprocessed) / folder.name] if nnUNet_preprocessed.is_set() else [],
        num_classes=num_classes,
        progress=partial(tqdm, desc="cases", leave=False, delay=1),
    )
    if result.ok:
        print("  ok    images, labels and classes")
    for note in result.notes:
        print(_indented(f"note  {note}"))
    for problem in result.problems:
        print(_indented(f"FAIL  {problem}"))
    return len(result.problems)


def _dataset_folder(dataset: str) -> Path:
    """Folder of a dataset given by path, by name or by number.

    Raises:
        ValueError, RuntimeError: from nnU-Net, when no dataset fits or nnUNet_raw is not set.
    """
    if Path(dataset).is_dir():
        return Path(dataset).resolve()
    from nnunet_3dct.upstream import maybe_convert_to_dataset_name, nnUNet_raw

    return Path(nnUNet_raw.require()) / maybe_convert_to_dataset_name(dataset)


def _line(finding: Finding) -> str:
    state = "FAIL" if not finding.ok else "note" if finding.warning else "ok"
    return _indented(f"{state:<4}  {finding.name}: {finding.message}")


def _indented(text: str) -> str:
    """First line two columns in, further lines below the text."""
    first, *rest = text.splitlines()
    return "\n".join([f"  {first}", *(textwrap.indent(line.strip(), " " * 8) for line in rest)])


if __name__ == "__main__":
    raise SystemExit(main())
