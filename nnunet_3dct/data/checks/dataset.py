"""Check a raw nnU-Net dataset with class labels and report everything that is wrong at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_3dct.data.checks.case import CaseCheck, check_cases
from nnunet_3dct.data.checks.cases import TEST, TRAINING, VALIDATION, CheckedCase, CheckedCases
from nnunet_3dct.data.checks.classes import check_class_counts, check_classes, read_classes
from nnunet_3dct.data.checks.description import allowed_labels, chosen_reader, structure_names, target_of
from nnunet_3dct.data.checks.duplicates import check_duplicates, check_patients
from nnunet_3dct.data.checks.files import check_files, check_sizes
from nnunet_3dct.data.checks.findings import Finding, Level, with_named_cases
from nnunet_3dct.data.checks.intensities import check_intensities
from nnunet_3dct.data.checks.orientation import check_orientation
from nnunet_3dct.data.checks.outliers import check_outliers
from nnunet_3dct.data.checks.plans import check_batch_sizes, find_configurations
from nnunet_3dct.data.checks.repairs import check_repairs, repair_command
from nnunet_3dct.data.checks.targets import check_planned_structures, check_structures
from nnunet_3dct.data.dataset_tables import check_dataset_tables, searched_folders
from nnunet_3dct.data.raw_cases import RawCase, find_raw_cases
from nnunet_3dct.formats.dataset_json import num_channels, read_dataset_json
from nnunet_3dct.paths import PREPROCESSED, SPLITS_FILE, is_set, nnunet_folder

Progress = Callable[..., Iterable[CaseCheck]]


@dataclass(frozen=True)
class DatasetCheck:
    """What the check of a raw dataset says.

    Attributes:
        folder: of the dataset.
        num_training: cases of ``imagesTr``, or listed in dataset.json.
        num_held_out: cases of ``imagesVal`` and ``imagesTs``.
        findings: all that was found, problems first within each subject.
        read: one line for each table that was read: class labels, splits.
        cases: what was compared; None where dataset.json cannot be used.
        seconds: that the check took.
    """

    folder: Path
    num_training: int
    num_held_out: int
    findings: list[Finding]
    read: list[str]
    cases: CheckedCases | None = field(default=None, repr=False)
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        """One text for each, empty when the dataset is sound."""
        return self._texts("problem")

    @property
    def warnings(self) -> list[str]:
        """What is likely to cost accuracy or hours, and may be meant."""
        return self._texts("warning")

    @property
    def notes(self) -> list[str]:
        """What one should know of a dataset and can leave as it is."""
        return self._texts("note")

    @property
    def num_cases(self) -> int:
        """Number of all cases."""
        return self.num_training + self.num_held_out

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def _texts(self, level: Level) -> list[str]:
        return [finding.text for finding in self.findings if finding.level == level]


def check_dataset(
    folder: Path,
    num_processes: int = 1,
    *,
    label_folders: Sequence[Path] | None = None,
    num_classes: int | None = None,
    target_labels: Sequence[int | str] | None = None,
    progress: Progress | None = None,
) -> DatasetCheck:
    """Check images, labels, classes, splits and plans of a dataset in nnU-Net's raw layout.

    ``imagesTr`` with ``labelsTr`` must be there and complete; ``imagesVal`` and ``imagesTs`` are checked
    where they exist, their labels where the folder of labels exists. Files are read as by the reader that nnU-Net
    will use.

    Args:
        folder: the dataset, with dataset.json in it.
        num_processes: cases checked side by side.
        label_folders: where the class labels are looked for before ``folder``; None for the preprocessed dataset of
            the same name.
        num_classes: number of classes asked for, None to take that of the labels.
        target_labels: voxel labels that carry the class, ids or names; None for all foreground.
        progress: wraps the results case by case, as ``tqdm`` does; called with ``total=``.

    Returns:
        Every problem at once, warnings and notes.

    Examples:
        >>> from nnunet_3dct import check_dataset
        >>> result = check_dataset(raw)
        >>> result.problems
        []
        >>> result.ok and result.num_cases == result.num_training + result.num_held_out
        True
    """
    start = time.perf_counter()
    folder = Path(folder)
    description, problems = read_dataset_json(folder)
    findings = _problems("dataset.json", problems)
    if description is None:
        return DatasetCheck(folder, 0, 0, findings, [])
    allowed, label_problems = allowed_labels(description)
    found = find_raw_cases(folder, description)
    reader, reader_problems = chosen_reader(description, found.training)
    findings += _problems("dataset.json", label_problems)
    findings += _problems("files", [*found.problems, *reader_problems])

    files = [*found.training, *found.held_out]
    results = check_cases(files, num_channels(description), allowed, reader, num_processes)
    checked = list(progress(results, total=len(files)) if progress else results)
    structures = structure_names(description)
    cases = CheckedCases(
        [
            CheckedCase(_part(raw, n < len(found.training)), raw, c)
            for n, (raw, c) in enumerate(zip(files, checked, strict=True))
        ],
        description,
        reader,
        structures,
        target_of(description, structures, target_labels),
    )
    findings += [*check_files(checked, repair_command(folder)), *check_repairs(checked, folder)]
    findings += check_sizes(checked, len(found.training))
    findings += _tables(folder, cases, label_folders, num_classes)
    read = check_dataset_tables(folder, num_classes)
    findings += [*_problems("tables", read.problems), *(Finding("tables", "note", note) for note in read.notes)]
    for subject in (check_orientation, check_intensities, check_structures, check_outliers, check_duplicates):
        findings += subject(cases)
    findings += _planned(folder, cases)
    findings = with_named_cases(findings, [case.case for case in cases.all])
    return DatasetCheck(
        folder, len(found.training), len(found.held_out), findings, read.read, cases, time.perf_counter() - start
    )


def preprocessed_folder(folder: Path) -> Path | None:
    """Where nnU-Net keeps plans and splits of a raw dataset, None where the variable is not set."""
    return nnunet_folder(PREPROCESSED) / folder.name if is_set(PREPROCESSED) else None


def _problems(subject: str, texts: Iterable[str]) -> list[Finding]:
    return [Finding(subject, "problem", text) for text in texts]


def _part(raw: RawCase, training: bool) -> str:
    if training:
        return TRAINING
    return TEST if raw.images and raw.images[0].parent.name == "imagesTs" else VALIDATION


def _tables(
    folder: Path, cases: CheckedCases, label_folders: Sequence[Path] | None, num_classes: int | None
) -> Iterator[Finding]:
    searched = searched_folders(folder) if label_folders is None else [*label_folders, folder]
    labels, unreadable = read_classes(searched)
    yield from unreadable
    if labels is None:
        return
    training = [case.case for case in cases.training]
    yield from check_classes(labels, training, [case.case for case in cases.all[len(training) :]], num_classes)
    yield from check_class_counts(labels, training, searched_folders(folder)[0] / SPLITS_FILE)
    yield from check_patients(cases, labels.groups)


def _planned(folder: Path, cases: CheckedCases) -> Iterator[Finding]:
    configurations, unreadable = find_configurations(preprocessed_folder(folder))
    yield from unreadable
    yield from check_batch_sizes(configurations, len(cases.training))
    yield from check_planned_structures(cases, configurations)
