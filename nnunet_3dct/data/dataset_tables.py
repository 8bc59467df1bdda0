"""Check what is listed beside a raw dataset's images: class labels, their names, covariates, splits, parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.data.splits import FOLDS, check_splits, count_patients, read_splits
from nnunet_3dct.errors import ClassLabelsError, ImageError, NNUNet3DCTError, SettingsError, listing
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.class_labels import ClassLabels, check_class_names, read_labels_in
from nnunet_3dct.formats.clinical import check_clinical_table, read_clinical_in
from nnunet_3dct.formats.image_folders import list_images
from nnunet_3dct.paths import DATASET_FILE, PREPROCESSED, SPLITS_FILE, is_set, nnunet_folder

PARTS = ("Tr", "Val", "Ts")


@dataclass(frozen=True)
class TableChecks:
    """Result of :func:`check_dataset_tables`.

    Attributes:
        read: one line for each file that was read: which, and what it holds.
        notes: worth reading, but no fault.
        problems: faults; empty when all is well.
    """

    read: list[str]
    notes: list[str]
    problems: list[str]


def check_dataset_tables(folder: Path, num_classes: int | None = None) -> TableChecks:
    """Read the tables of a raw dataset as training does, and compare them with its cases.

    Class labels that cannot be used are left to :func:`nnunet_3dct.data.checks.dataset.check_dataset`, which lists
    their faults.

    Args:
        folder: the raw dataset; ``<nnUNet_preprocessed>/<its name>`` is searched too.
        num_classes: number of classes asked for, None to take that of the labels.
    """
    result = TableChecks([], [], [])
    try:
        description = read_json(folder / DATASET_FILE, "Description of the dataset", SettingsError)
        ending = description["file_ending"]
    except (NNUNet3DCTError, KeyError, TypeError):
        return result  # the check of the dataset says what is wrong with it
    cases = {part: _cases(folder, part, str(ending)) for part in PARTS}
    if isinstance(description.get("dataset"), dict):
        cases["Tr"] = sorted(description["dataset"])
    result.problems.extend(_overlaps(cases))
    try:
        labels = read_labels_in(searched_folders(folder))
    except ClassLabelsError:
        labels = None
    if labels is not None:
        _check_labels(labels, [case for part in PARTS for case in cases[part]], result)
        number = num_classes or labels.num_classes
        try:
            check_class_names(description.get("class_names"), number, str(folder / DATASET_FILE))
        except ClassLabelsError as error:
            result.problems.append(str(error))
    _check_covariates(folder, cases, labels, result)
    _check_splits(searched_folders(folder)[0] / SPLITS_FILE, cases["Tr"], labels.groups if labels else {}, result)
    return result


def searched_folders(folder: Path) -> list[Path]:
    """Where the class labels of a raw dataset are searched for: the preprocessed data, then ``folder``."""
    return [*([nnunet_folder(PREPROCESSED) / folder.name] if is_set(PREPROCESSED) else []), folder]


def _cases(folder: Path, part: str, ending: str) -> list[str]:
    """Cases of ``imagesTr``, ``imagesVal`` or ``imagesTs``, sorted."""
    try:
        return [images.case for images in list_images(folder / f"images{part}", ending).cases]
    except ImageError:  # the check of the images says what is wrong
        return []


def _overlaps(cases: Mapping[str, Sequence[str]]) -> list[str]:
    """One line for each pair of parts that share cases."""
    problems = []
    for n, first in enumerate(PARTS):
        for second in PARTS[n + 1 :]:
            shared = sorted({*cases[first]} & {*cases[second]})
            if shared:
                problems.append(
                    f"images{first} and images{second}: expected different cases, found these in both: "
                    f"{listing(shared)}. Move each case to one of them: a case that was trained on cannot test."
                )
    return problems


def _check_labels(labels: ClassLabels, cases: Sequence[str], result: TableChecks) -> None:
    known = [case for case, label in labels.by_case.items() if label >= 0]
    patients = f", {len(set(labels.groups.values()))} patients" if labels.groups else ""
    result.read.append(
        f"class labels: {labels.source}: {len(labels.by_case)} cases, {len(known)} of them in {labels.num_classes} "
        f"classes ({', '.join(map(str, labels.counts(known)))} cases){patients}"
    )
    lonely = sorted(labels.by_case.keys() - set(cases))
    if lonely:
        result.notes.append(
            f"class labels: {len(lonely)} without a case in {listing([f'images{part}' for part in PARTS])}: "
            f"{listing(lonely)}"
        )


def _check_covariates(
    folder: Path, cases: Mapping[str, Sequence[str]], labels: ClassLabels | None, result: TableChecks
) -> None:
    try:
        table = read_clinical_in(searched_folders(folder))
    except SettingsError as error:
        result.problems.append(str(error))
        return
    if table is None:
        return
    columns = listing([f"{name} (a {kind})" for name, kind in table.kinds.items()])
    result.read.append(f"covariates: {table.source}: {len(table.by_case)} cases; {columns}")
    known = [case for part in PARTS for case in cases[part]]
    problems = check_clinical_table(table, known, labels.by_case if labels else {})
    result.problems.extend(f"{table.source.name}: {problem}." for problem in problems)
    without = table.without_row(cases["Tr"])
    if without:
        result.notes.append(
            f"covariates: {len(without)} training cases without a row, which count as missing: {listing(without)}"
        )


def _check_splits(path: Path, cases: Sequence[str], groups: Mapping[str, str], result: TableChecks) -> None:
    units = count_patients(cases, groups)
    if not path.is_file():
        if 2 <= units < FOLDS:
            result.notes.append(
                f"{units} training {'patients' if groups else 'cases'} are fewer than nnU-Net's {FOLDS} folds; write "
                f"the splits before training: nnUNet3DCT_splits -d {path.parent.name} -k {units}"
            )
        return
    try:
        splits = read_splits(path)
    except SettingsError as error:
        result.problems.append(str(error))
        return
    result.read.append(f"splits: {path}: {len(splits)} fold{'s' * (len(splits) != 1)}")
    result.problems.extend(f"{path.name}: {problem}." for problem in check_splits(splits, cases, groups))
