"""What is wrong with the files of single cases, and what one should know of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nnunet_3dct.data.checks.case import CaseCheck
from nnunet_3dct.data.checks.findings import Finding
from nnunet_3dct.errors import ImageError, listing
from nnunet_3dct.formats.image_files import check_planned_size

SUBJECT = "files"


def check_files(checked: Sequence[CaseCheck], remedy: str) -> Iterator[Finding]:
    """Problems of each case; notes on label values that had to be rounded and on files that are not compressed.

    Args:
        checked: all cases.
        remedy: the command that repairs both.
    """
    for result in checked:
        for problem in result.problems:
            yield Finding(SUBJECT, "problem", problem, (result.case,))
    rounded = [(result.case, result.rounding) for result in checked if result.rounding]
    if rounded:
        voxels = sum(rounding.voxels for _, rounding in rounded)
        names = [case for case, _ in rounded]
        yield Finding(
            SUBJECT,
            "note",
            f"{len(rounded)} label volumes hold values that are not quite whole, such as {rounded[0][1].example:.7g} "
            f"({voxels} voxels in {listing(names, 3)}), mostly from a scaling factor in the "
            "header. They count as the label that is within 0.01, in evaluation too. nnU-Net's preprocessing compares "
            "exactly and does not find the structures of these cases when it samples patches with foreground; "
            f"whole numbers in the files are better: {remedy}",
            tuple(names),
        )
    unpacked = [name for result in checked for name in result.unpacked]
    if unpacked:
        yield Finding(
            SUBJECT,
            "note",
            f"{len(unpacked)} files named .nii.gz are not compressed: {listing(unpacked, 3)}. ITK, and so nnU-Net's "
            f"SimpleITKIO, reads them; other programs do not. Repair: {remedy}",
            tuple(result.case for result in checked if result.unpacked),
        )


def check_sizes(checked: Sequence[CaseCheck], num_training: int) -> Iterator[Finding]:
    """Cases too large at the voxel size that nnU-Net would plan, the median of the training cases."""
    grids = [result.grid for result in checked[:num_training] if result.grid and len(result.grid.size) == 3]
    if not grids:
        return
    target = np.median([grid.spacing for grid in grids], axis=0).tolist()
    for result in checked:
        if result.grid and len(result.grid.size) == 3:
            try:
                check_planned_size(result.grid.size, result.grid.spacing, target, result.case)
            except ImageError as error:
                yield Finding("geometry", "problem", str(error), (result.case,))
