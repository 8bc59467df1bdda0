"""Check and measure one case: files, grids, labels; each file is decompressed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from nnunet_3dct.data.checks.measured import Measured, measure
from nnunet_3dct.data.raw_cases import RawCase
from nnunet_3dct.data.repairs import COMPRESSION, Repair, find_repairs
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.case_images import PlainCopies
from nnunet_3dct.formats.geometry import Geometry
from nnunet_3dct.formats.image_files import (
    check_case_content,
    check_label_fits_image,
    read_geometry,
    read_voxels,
    unpacked_under_a_compressed_name,
)
from nnunet_3dct.formats.label_values import Rounding, read_whole_labels


@dataclass
class CaseCheck:
    """What the check of one case says.

    Attributes:
        case: identifier.
        problems: one text each.
        grid: of its images, None where it is unknown.
        rounding: of its label, None where nothing had to be rounded.
        unpacked: files that are not compressed though their name says so.
        repairs: what can be put right in its files without loss.
        measured: for the comparison with other cases; None where it cannot be read or has not three axes.
    """

    case: str
    problems: list[str] = field(default_factory=list)
    grid: Geometry | None = None
    rounding: Rounding | None = None
    unpacked: list[str] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    measured: Measured | None = None


def check_case(files: RawCase, channels: int, allowed: Sequence[int], reader: str | None = None) -> CaseCheck:
    """Check one case: its images, its label, and whether the two fit.

    Args:
        files: of the case.
        channels: number of channels of the dataset.
        allowed: labels of the dataset; empty to leave out the values of the label.
        reader: name of nnU-Net's reader of the dataset, None for one that uses ITK.
    """
    result = CaseCheck(files.case)
    present = [path for path in (*files.images, files.label) if path and path.is_file()]
    with PlainCopies(present, reader) as copies:
        images = _check_images(files, channels, reader, copies, result)
        label = None
        if files.label is not None:
            try:
                plain = copies.whole(files.label)
            except ImageError as error:
                result.problems.append(str(error))
            else:
                fits = _check_fit(files, plain, images, reader, copies, result)
                label = _check_labels(files, plain, allowed, reader, copies, result)
                label = label if fits else None
        if result.grid is not None and len(result.grid.size) == 3 and result.grid.channels == 1:
            try:
                result.measured = measure(read_voxels(images[0], reader), result.grid, images[0], label)
            except Exception as error:  # whatever a file holds costs its own line and not the check of all others
                reason = copies.original_names(str(error)) or type(error).__name__
                result.problems.append(f"{files.case}: the image cannot be measured: {reason}. Look at the file.")
        result.repairs = _repairs(files, reader, copies)
    result.unpacked = [path.name for path in present if unpacked_under_a_compressed_name(path)]
    return result


def check_cases(
    cases: Sequence[RawCase], channels: int, allowed: Sequence[int], reader: str | None, num_processes: int
) -> Iterator[CaseCheck]:
    """:func:`check_case` of each, in their order, several side by side."""
    check = partial(check_case, channels=channels, allowed=allowed, reader=reader)
    if num_processes <= 1 or len(cases) <= 1:
        yield from map(check, cases)
        return
    with ProcessPoolExecutor(min(num_processes, len(cases)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(check, cases, chunksize=4)


def _repairs(files: RawCase, reader: str | None, copies: PlainCopies) -> list[Repair]:
    """What can be repaired; nothing where something else is wrong, which is told as a problem.

    Files that are not compressed in spite of their names are left to ``unpacked``: so are the copies.
    """
    images = [copies.known(path) for path in files.images]
    label = copies.known(files.label) if files.label is not None else None
    found: list[Repair] = []
    try:
        for path in images[1:]:
            found += find_repairs(None, path, reader=reader)
        found += find_repairs(label, images[0] if images else None, reader=reader)
    except (ImageError, OSError):
        pass
    originals = {copies.known(path): path for path in (*files.images, files.label) if path is not None}
    return [replace(repair, file=originals[repair.file]) for repair in found if repair.kind != COMPRESSION]


def _check_images(
    files: RawCase, channels: int, reader: str | None, copies: PlainCopies, result: CaseCheck
) -> list[Path]:
    """Whole copies of the images; empty where one of them cannot be used."""
    try:
        images = [copies.whole(path) for path in files.images]
        check_case_content(images, channels, files.case, reader=reader, refuse_constant=True)
        result.grid = read_geometry(images[0], reader=reader)
    except ImageError as error:
        result.problems.append(copies.original_names(str(error)))
        return []
    return images


def _check_fit(
    files: RawCase, label: Path, images: list[Path], reader: str | None, copies: PlainCopies, result: CaseCheck
) -> bool:
    if result.grid is None:
        return False
    try:
        check_label_fits_image(label, images[0], files.case, reader=reader)
    except ImageError as error:
        result.problems.append(copies.original_names(str(error)))
        return False
    return True


def _check_labels(
    files: RawCase, label: Path, allowed: Sequence[int], reader: str | None, copies: PlainCopies, result: CaseCheck
) -> np.ndarray | None:
    """Values of the label, None where they cannot be used; notes in ``result`` what had to be rounded."""
    if not allowed:
        return None
    try:
        values, result.rounding = read_whole_labels(label, allowed, files.case, reader=reader)
    except ImageError as error:
        result.problems.append(copies.original_names(str(error)))
        return None
    result.problems += _rounded_down(files, result.rounding)
    return values


def _rounded_down(files: RawCase, rounding: Rounding | None) -> Iterator[str]:
    if rounding and rounding.below:
        yield (
            f"{files.case}: label {files.label}: {rounding.below} voxels lie just below their label, such as "
            f"{rounding.example:.7g}, and nnU-Net's preprocessing cuts them down to the label below. Write the "
            "volume with whole numbers."
        )
