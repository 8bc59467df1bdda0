"""What can be repaired in the files of a dataset, named as the conversion names it, and the command that does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunet_3dct.data.checks.case import CaseCheck
from nnunet_3dct.data.checks.findings import Finding
from nnunet_3dct.data.repairs import COMPRESSION, DIRECTION, INTEGERS, VALUES, Repair, summarize_repairs

SUBJECT = "repairs"


def repair_command(folder: Path) -> str:
    """The command that repairs a dataset in place."""
    return f"nnUNet3DCT_convert -i {folder} --repair"


def check_repairs(checked: Sequence[CaseCheck], folder: Path) -> Iterator[Finding]:
    """One finding for each kind of repair that files need.

    Values that are not quite whole and files that are not compressed are told with the files (:mod:`files`); integers
    stored as floating point harm no training and are told where that is all.

    Args:
        checked: all cases.
        folder: of the dataset, for the command.
    """
    remedy = f"Repair: {repair_command(folder)}"
    told = {VALUES, COMPRESSION}
    by_kind: dict[str, dict[str, list[Repair]]] = {}
    for result in checked:
        kinds = {repair.kind for repair in result.repairs}
        for repair in result.repairs:
            if repair.kind not in told and not (repair.kind == INTEGERS and VALUES in kinds):
                by_kind.setdefault(repair.kind, {}).setdefault(result.case, []).append(repair)
    for kind, by_case in by_kind.items():
        for text in summarize_repairs(by_case, remedy):
            yield Finding(SUBJECT, "warning" if kind == DIRECTION else "note", text, tuple(by_case))
