"""Check a raw nnU-Net dataset with class labels and report everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from nnunet_3dct.data.dataset_tables import check_dataset_tables, searched_folders
from nnunet_3dct.data.raw_cases import RawCase, find_raw_cases
from nnunet_3dct.errors import ClassLabelsError, ImageError, listing
from nnunet_3dct.formats.class_labels import check_class_labels, read_labels_in
from nnunet_3dct.formats.dataset_json import num_channels, read_dataset_json
from nnunet_3dct.formats.image_files import (
    Geometry,
    check_case_files,
    check_image_file,
    check_label_fits_image,
    check_planned_size,
    read_geometry,
    unpacked_under_a_compressed_name,
)
from nnunet_3dct.formats.image_readers import DatasetJson, choose_reader, reader_name
from nnunet_3dct.formats.label_values import Rounding, check_label_values

Progress = Callable[..., Iterable["CaseCheck"]]


@dataclass(frozen=True)
class DatasetCheck:
    """What the check of a raw dataset says.

    Attributes:
        folder: of the dataset.
        num_training: cases of ``imagesTr``, or listed in dataset.json.
        num_held_out: cases of ``imagesVal`` and ``imagesTs``.
        problems: one text for each, empty when the dataset is sound.
        notes: what one should know of a dataset and can leave as it is.
        read: one line for each table that was read: class labels, splits.
    """

    folder: Path
    num_training: int
    num_held_out: int
    problems: list[str]
    notes: list[str]
    read: list[str]

    @property
    def num_cases(self) -> int:
        """Number of all cases."""
        return self.num_training + self.num_held_out

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


@dataclass
class CaseCheck:
    """What the check of one case says: ``grid`` of its images and ``rounding`` of its label, None where unknown."""

    case: str
    problems: list[str] = field(default_factory=list)
    grid: Geometry | None = None
    rounding: Rounding | None = None
    unpacked: list[str] = field(default_factory=list)


def check_dataset(
    folder: Path,
    num_processes: int = 1,
    *,
    label_folders: Sequence[Path] | None = None,
    num_classes: int | None = None,
    progress: Progress | None = None,
) -> DatasetCheck:
    """Check images, labels, classes and splits of a dataset in nnU-Net's raw layout.

    ``imagesTr`` with ``labelsTr`` must be there and complete; ``imagesVal`` and ``imagesTs`` are checked
    where they exist, their labels where the folder of labels exists. Files are read as by the reader that nnU-Net
    will use.

    Args:
        folder: the dataset, with dataset.json in it.
        num_processes: cases checked side by side.
        label_folders: where the class labels are looked for before ``folder``; None for the preprocessed dataset of
            the same name.
        num_classes: number of classes asked for, None to take that of the labels.
        progress: wraps the results case by case, as ``tqdm`` does; called with ``total=``.

    Returns:
        Every problem at once, and notes.

    Examples:
        >>> from nnunet_3dct import check_dataset
        >>> result = check_dataset(raw)
        >>> result.problems
        []
        >>> result.ok and result.num_cases == result.num_training + result.num_held_out
        True
    """
    folder = Path(folder)
    description, problems = read_dataset_json(folder)
    if description is None:
        return DatasetCheck(folder, 0, 0, problems, [], [])
    allowed, label_problems = allowed_labels(description)
    cases = find_raw_cases(folder, description)
    reader, reader_problems = _reader(description, cases.training)
    problems += [*label_problems, *cases.problems, *reader_problems]

    check = partial(check_case, channels=num_channels(description), allowed=allowed, reader=reader)
    total = len(cases.training) + len(cases.held_out)
    results = _map(check, [*cases.training, *cases.held_out], num_processes)
    checked = list(progress(results, total=total) if progress else results)
    problems += [problem for result in checked for problem in result.problems]
    problems += _size_problems(checked, len(cases.training))

    names = [case.case for case in cases.training], [case.case for case in cases.held_out]
    searched = searched_folders(folder) if label_folders is None else [*label_folders, folder]
    problems += check_classes(searched, *names, num_classes=num_classes)
    tables = check_dataset_tables(folder, num_classes)
    problems += tables.problems
    notes = [*_notes(checked), *tables.notes]
    return DatasetCheck(folder, len(cases.training), len(cases.held_out), problems, notes, tables.read)


def allowed_labels(description: DatasetJson) -> tuple[list[int], list[str]]:
    """Voxel values that dataset.json allows, the ignore label among them, as nnU-Net reads them."""
    from nnunet_3dct.upstream import LabelManager

    try:
        manager = LabelManager(description["labels"], description.get("regions_class_order"))
        allowed = [int(label) for label in manager.all_labels]
        if manager.has_ignore_label:
            allowed.append(int(manager.ignore_label))
    except Exception as error:  # nnU-Net asserts, and lets wrong types run into its own code
        return [], [f"dataset.json: 'labels' cannot be used by nnU-Net: {error}"]
    if sorted(allowed) != list(range(len(allowed))):
        return allowed, [f"dataset.json: expected consecutive labels 0, 1, 2, ..., found {sorted(allowed)}."]
    return allowed, []


def check_case(files: RawCase, channels: int, allowed: Sequence[int], reader: str | None = None) -> CaseCheck:
    """Check one case: its images, its label, and whether the two fit.

    Args:
        files: of the case.
        channels: number of channels of the dataset.
        allowed: labels of the dataset; empty to leave out the values of the label.
        reader: name of nnU-Net's reader of the dataset, None for one that uses ITK.
    """
    result = CaseCheck(files.case)
    try:
        check_case_files(files.images, channels, files.case, reader=reader, refuse_constant=True)
        result.grid = read_geometry(files.images[0], reader=reader)
    except ImageError as error:
        result.problems.append(str(error))
    if files.label is not None:
        try:
            check_image_file(files.label, reader=reader)
        except ImageError as error:
            result.problems.append(str(error))
        else:
            result.problems += _check_label(files, files.label, allowed, reader, result)
    present = [path for path in (*files.images, files.label) if path and path.is_file()]
    result.unpacked = [path.name for path in present if unpacked_under_a_compressed_name(path)]
    return result


def check_classes(
    folders: Sequence[Path], training: Sequence[str], held_out: Sequence[str], *, num_classes: int | None
) -> list[str]:
    """Problems of the class labels.

    Held-out cases may be missing altogether, since their labels can be kept elsewhere; when some are listed,
    all must be.
    """
    try:
        labels = read_labels_in(folders)
    except ClassLabelsError as error:
        return [str(error)]
    cases = list(training)
    if any(case in labels.by_case for case in held_out):
        cases += held_out
    return [f"{labels.source.name}: {problem}" for problem in check_class_labels(labels, cases, num_classes)]


def _check_label(
    files: RawCase, label: Path, allowed: Sequence[int], reader: str | None, result: CaseCheck
) -> Iterator[str]:
    """Problems of a label that can be read; notes in ``result`` what had to be rounded."""
    if result.grid is not None:
        try:
            check_label_fits_image(label, files.images[0], files.case, reader=reader)
        except ImageError as error:
            yield str(error)
    if not allowed:
        return
    try:
        result.rounding = check_label_values(label, allowed, files.case, reader=reader)
    except ImageError as error:
        yield str(error)
    if result.rounding and result.rounding.below:
        yield (
            f"{files.case}: label {label}: {result.rounding.below} voxels lie just below their label, such as "
            f"{result.rounding.example:.7g}, and nnU-Net's preprocessing cuts them down to the label below. Write the "
            "volume with whole numbers."
        )


def _reader(description: DatasetJson, training: Sequence[RawCase]) -> tuple[str | None, list[str]]:
    """Name of the reader that nnU-Net's planning will take, None where it finds none."""
    example = next((case.images[0] for case in training if case.images), None)
    try:
        return reader_name(choose_reader(description, example)), []
    except ImageError as error:
        named = "overwrite_image_reader_writer" in str(error) or example is None
        return None, [str(error)] if named else []  # a file that no reader opens is reported with its case


def _size_problems(checked: Sequence[CaseCheck], num_training: int) -> Iterator[str]:
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
                yield str(error)


def _notes(checked: Sequence[CaseCheck]) -> list[str]:
    notes = []
    rounded = [(result.case, result.rounding) for result in checked if result.rounding]
    if rounded:
        voxels = sum(rounding.voxels for _, rounding in rounded)
        notes.append(
            f"{len(rounded)} label volumes hold values that are not quite whole, such as {rounded[0][1].example:.7g} "
            f"({voxels} voxels in {listing([case for case, _ in rounded], 3)}), mostly from a scaling factor in the "
            "header. They count as the label that is within 0.01, in evaluation too. nnU-Net's preprocessing compares "
            "exactly and does not find the structures of these cases when it samples patches with foreground; "
            "whole numbers in the files are better."
        )
    unpacked = [name for result in checked for name in result.unpacked]
    if unpacked:
        notes.append(
            f"{len(unpacked)} files named .nii.gz are not compressed: {listing(unpacked, 3)}. ITK, and so nnU-Net's "
            "SimpleITKIO, reads them; other programs do not."
        )
    return notes


def _map(check: Callable[[RawCase], CaseCheck], cases: Sequence[RawCase], num_processes: int) -> Iterator[CaseCheck]:
    if num_processes <= 1 or len(cases) <= 1:
        yield from map(check, cases)
        return
    with ProcessPoolExecutor(min(num_processes, len(cases)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(check, cases, chunksize=4)
