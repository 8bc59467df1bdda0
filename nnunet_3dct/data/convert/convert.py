"""A hospital's folder becomes a dataset of nnU-Net with class labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nnunet_3dct
from nnunet_3dct.data.convert.case import convert_case
from nnunet_3dct.data.convert.class_table import Columns
from nnunet_3dct.data.convert.detect import DICOM
from nnunet_3dct.data.convert.dicom_tree import keep_names
from nnunet_3dct.data.convert.folders import Folders
from nnunet_3dct.data.convert.job import CaseJob, targets
from nnunet_3dct.data.convert.reading import ConversionOptions, read_source
from nnunet_3dct.data.convert.run import Progress, run_jobs
from nnunet_3dct.data.convert.source import PARTS, Source
from nnunet_3dct.data.convert.tables import dataset_tables, label_problems
from nnunet_3dct.data.convert.target import (
    check_places,
    clear,
    earlier_conversion,
    prepare,
    remove_unfinished,
    write_tables,
)
from nnunet_3dct.data.convert.transfer import COPY, TRANSFERS
from nnunet_3dct.dicom.identifiers import key
from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.formats.conversion import CaseRecord, Conversion, Journal, RepairRecord, write_conversion
from nnunet_3dct.runtime import check_choice


@dataclass(frozen=True)
class ConversionResult:
    """What a conversion has done.

    Attributes:
        folder: of the dataset.
        kind: of the source.
        num_cases: part (``Tr``, ``Val``, ``Ts``) -> number of its cases in the dataset.
        num_kept: of them, those that an earlier run had finished.
        repairs: file in the dataset -> repairs that were made in it.
        failed: case -> why it could not be converted.
        left_out: file, folder or row of the table -> why it is in no case.
        problems: of the dataset as a whole.
        notes: worth reading.
        class_names: of the classes 0, 1, ...; None where they have none.
    """

    folder: Path
    kind: str
    num_cases: dict[str, int]
    num_kept: int
    repairs: dict[str, list[RepairRecord]]
    failed: dict[str, str]
    left_out: dict[str, str]
    problems: list[str]
    notes: list[str]
    class_names: list[str] | None

    @property
    def ok(self) -> bool:
        """Whether all of the source is in the dataset."""
        return not (self.failed or self.left_out or self.problems)


def convert_dataset(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    kind: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    test_images: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    sheet: str | None = None,
    name_column: str | None = None,
    class_column: str | None = None,
    patient_column: str | None = None,
    split_column: str | None = None,
    class_names: Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    label_map: Mapping[int, int] | None = None,
    channel_names: Sequence[str] | None = None,
    transfer: str = COPY,
    keep_ids: bool = False,
    num_processes: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConversionResult:
    """Convert images, masks and classes as a hospital, a challenge or a scanner keeps them to a dataset of nnU-Net.

    Writes ``imagesTr``, ``labelsTr``, ``imagesVal``, ``labelsVal``, ``imagesTs``, ``dataset.json``,
    ``classification.json`` (patients in ``classification.csv``) and ``conversion.json``, which holds source, hash and
    repairs of every file. A file that cannot be read costs its case and not the run. A run that was stopped goes on
    where it was when the same source is converted into the same folder again.

    Args:
        source: folder to convert; for DICOM also a ZIP archive.
        folder: of the dataset, such as ``$nnUNet_raw/Dataset001_3DCT``.
        kind: ``challenge``, ``folders``, ``decathlon`` or ``dicom``; None to find out.
        images, masks, test_images: folders, or patterns such as ``*/ct.nii.gz``, in the source or anywhere.
        labels: table of classes, CSV or ``.xlsx``; None for the only table in the source.
        sheet: of the workbook.
        name_column, class_column, patient_column, split_column: of the table, where they are not called as usual.
        class_names: order of the classes where the table has names.
        label_names: of the labels 1, 2, ... in the masks.
        label_map: labels in the masks that become others, such as ``{255: 1}``.
        channel_names: of the images; ``CT`` for one.
        transfer: ``copy``, ``hardlink`` or ``symlink``, for files that need no repair.
        keep_ids: let DICOM identifiers into the dataset.
        num_processes: cases converted side by side.
        overwrite: replace what is in the folder already.
        progress: called after each case with the number of those done and of all.

    Raises:
        SettingsError: the source is none, or the folder holds something else.
        OutputError: a file cannot be written, as on a full disk.

    Examples:
        >>> import nnunet_3dct, shutil
        >>> for part in ("images", "labels"):
        ...     _ = shutil.copytree(raw / f"{part}Tr", tmp / "hospital" / part)
        >>> _ = (tmp / "hospital" / "classes.csv").write_text("Names;Subtype\\ntoy_000;cystic\\ntoy_001;solid\\n")
        >>> result = nnunet_3dct.convert_dataset(tmp / "hospital", tmp / "Dataset002_3DCT")
        >>> result.kind, result.class_names
        ('folders', ['cystic', 'solid'])
        >>> sorted(path.name for path in result.folder.iterdir())
        ['classification.json', 'conversion.json', 'dataset.json', 'imagesTr', 'labelsTr']
    """
    options = ConversionOptions(
        kind, Folders(images, masks, test_images), None if labels is None else Path(labels), sheet,
        Columns(name_column, class_column, patient_column, split_column), class_names, label_names, label_map,
        channel_names, transfer, keep_ids,
    )  # fmt: skip
    _check_arguments(options, num_processes)
    target = Path(folder).resolve()
    check_places(Path(source).resolve(), target)
    found = read_source(Path(source).resolve(), options)
    if not found.cases:
        reasons = listing([f"{name}: {reason}" for name, reason in found.left_out.items()], 5) or "nothing at all"
        raise SettingsError(f"{source}: expected cases to convert, found none ({reasons}).")
    conversion = _conversion(found, options)
    if overwrite:
        clear(target)
    earlier = earlier_conversion(target, conversion) or conversion
    keep_names(found, earlier.cases)
    return _Run(target, found, conversion, earlier).convert(options, num_processes, progress)


@dataclass
class _Run:
    """A conversion of a source that has been read."""

    target: Path
    source: Source
    conversion: Conversion
    earlier: Conversion

    def convert(self, options: ConversionOptions, num_processes: int, progress: Progress | None) -> ConversionResult:
        """Convert every case, write the tables and the record."""
        source, conversion, before = self.source, self.conversion, dict(self.earlier.cases)
        masks = {case.part for case in source.cases if case.has_mask}
        prepare(self.target, {case.part for case in source.cases}, masks)
        journal = Journal(self.target)
        remove_unfinished(self.target, journal, self.earlier)
        journal.start(conversion, before.values(), self._files_to_write())
        label_map = tuple(sorted((options.label_map or {}).items()))
        structures = tuple((name.casefold(), label) for label, name in (source.label_names or {}).items())
        jobs = [
            CaseJob(case, source.root, self.target, len(source.channel_names), options.transfer, before.get(case.case),
                    label_map, structures)
            for case in source.cases
        ]  # fmt: skip
        kept = 0
        for result in run_jobs(convert_case, jobs, num_processes, progress):
            source.notes += [f"{result.case}: {note}" for note in result.notes]
            if result.record is not None:
                conversion.cases[result.case] = result.record
                kept += result.kept
                if not result.kept:
                    journal.add(result.record)
            elif result.problem is not None:
                conversion.failed[result.case] = result.problem
                if self._is_there(before.get(result.case)):
                    conversion.cases[result.case] = before[result.case]
        conversion.left_out = dict(source.left_out)
        problems = self._keep_lost(before)
        finished = self._write_tables(problems)
        journal.remove()
        return ConversionResult(
            self.target, source.kind, finished, kept,
            {name: record.repairs for name, record in conversion.files().items() if record.repairs},
            conversion.failed, conversion.left_out, problems, source.notes, source.class_names,
        )  # fmt: skip

    def _write_tables(self, problems: list[str]) -> dict[str, int]:
        """Write all but images; returns the number of cases of each part."""
        done = [case for case in self.source.cases if case.case in self.conversion.cases]
        records = [self.conversion.cases[case.case] for case in done]
        problems += label_problems(self.source, records)
        tables = dataset_tables(self.source, done, records)
        self.conversion.tables, left = write_tables(self.target, tables, self.earlier.tables)
        problems += left
        write_conversion(self.conversion, self.target)
        return {part: sum(case.part == part for case in done) for part in PARTS}

    def _files_to_write(self) -> list[str]:
        names = []
        for case in self.source.cases:
            images, mask = targets(case, len(self.source.channel_names))
            names += [*images, *([mask] if mask else [])]
        return [name for name in names if not os.path.lexists(self.target / name)]

    def _keep_lost(self, before: Mapping[str, CaseRecord]) -> list[str]:
        """Keep the record of cases that an earlier run has written and the source no longer has."""
        lost = [name for name in before if name not in {case.case for case in self.source.cases}]
        there = [name for name in lost if self._is_there(before[name])]
        self.conversion.cases |= {name: before[name] for name in there}
        if not there:
            return []
        return [
            f"{listing(there)}: in the dataset from an earlier run, but no longer in the source. Remove their files, "
            "or allow to overwrite the dataset."
        ]

    def _is_there(self, record: CaseRecord | None) -> bool:
        return record is not None and all((self.target / name).is_file() for name in record.files)


def _conversion(source: Source, options: ConversionOptions) -> Conversion:
    changing = {"keep_ids": "yes"} if options.keep_ids else {}
    if options.label_map:
        changing["label_map"] = " ".join(f"{old}={new}" for old, new in sorted(options.label_map.items()))
    name = str(source.root)
    if source.kind == DICOM and not options.keep_ids:
        name = f"folder {key(name)}"  # whose name may be a patient's
    return Conversion(name, source.kind, changing, nnunet_3dct.__version__)


def _check_arguments(options: ConversionOptions, num_processes: int) -> None:
    check_choice("transfer", options.transfer, TRANSFERS)
    if num_processes < 1:
        raise SettingsError(f"num_processes: expected 1 or more, found {num_processes}.")
    for name, values in (
        ("class_names", options.class_names), ("label_names", options.label_names),
        ("channel_names", options.channel_names),
    ):  # fmt: skip
        if values is not None and (len(values) != len({value.casefold() for value in values}) or not all(values)):
            raise SettingsError(f"{name}: expected different names, found {listing(list(values))}.")
    bad = [f"{old}={new}" for old, new in (options.label_map or {}).items() if min(old, new) < 0]
    if bad:
        raise SettingsError(f"label_map: expected labels from 0, found {listing(bad)}.")
