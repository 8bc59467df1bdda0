"""``nnUNet3DCT_doctor``: is the installation sound, and the machine fit for a training?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_3dct.cli.check import line_of, report_installation
from nnunet_3dct.cli.runner import DONE, SOME_FAILED, run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line a check; the exit code is 1 when one of them failed."""
    run_command(_parser(), _examine, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_doctor",
        description="Check the installation and the machine: versions that fit each other, which nnU-Net is found, its "
        "trainer search, folders, CUDA, memory, free disk, threads. With -d also what the plans of a dataset need. The "
        "exit code is 1 when something is wrong, 2 when there is no such dataset.",
    )
    parser.add_argument("-d", metavar="DATASET", help="name or id of a dataset in nnUNet_raw, or its folder")
    return parser


def _examine(args: argparse.Namespace) -> int:
    from nnunet_3dct.data.installation import locate_nnunet
    from nnunet_3dct.data.machine import check_machine
    from nnunet_3dct.paths import find_raw_dataset

    folder = find_raw_dataset(args.d) if args.d is not None else None
    problems, _ = report_installation()
    print("\nMachine")
    findings = check_machine(locate_nnunet())
    for finding in findings:
        print(line_of(finding))
    if folder is not None:
        from nnunet_3dct.data.checks.dataset import preprocessed_folder
        from nnunet_3dct.data.planned_memory import check_planned_memory

        print(f"\nPlans of {folder.name}")
        planned = check_planned_memory(folder, preprocessed_folder(folder))
        for finding in planned:
            print(line_of(finding))
        findings = [*findings, *planned]
    problems += sum(not finding.ok for finding in findings)
    print(f"\nFAILED: {problems} problem(s) found" if problems else "\nAll checks passed")
    return SOME_FAILED if problems else DONE


if __name__ == "__main__":
    main()
