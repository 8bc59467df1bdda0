"""One case of a source becomes files of the dataset: checked, repaired, written whole, recorded."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nnunet_3dct.data.convert.dicom_tree import series_sha256, write_masks, write_series
from nnunet_3dct.data.convert.job import ENDING, CaseJob, CaseResult, file_name, kept_result, series_name, targets
from nnunet_3dct.data.convert.source import stem_of
from nnunet_3dct.data.convert.transfer import COPY, HOW, transfer_file
from nnunet_3dct.data.mask_values import stored_labels
from nnunet_3dct.data.repairing import repair
from nnunet_3dct.data.repairs import FORMAT, MAPPED, SPLIT, Repair, find_repairs
from nnunet_3dct.dicom.cases import DicomCase
from nnunet_3dct.dicom.volume import DicomVolume
from nnunet_3dct.errors import ImageError, OutputError, listing
from nnunet_3dct.formats.conversion import CaseRecord, FileRecord, RepairRecord, file_sha256, keep_voxels
from nnunet_3dct.formats.geometry import NIFTI
from nnunet_3dct.formats.image_files import check_case_content, check_image_file
from nnunet_3dct.formats.nifti_content import NiftiContent, content_from_image, read_content, write_content
from nnunet_3dct.formats.nifti_header import read_nifti_header

TEMPORARY = ".nnunet_3dct_"  # begins the names of folders that a run has for itself


def convert_case(job: CaseJob) -> CaseResult:
    """Convert one case; what is wrong with it is in the result.

    Raises:
        OutputError: a file cannot be written, as on a full disk, so that the run is to end.
    """
    case = job.case.case
    try:
        if job.earlier is not None:
            kept = kept_result(job, job.earlier)
            if kept is not None:
                return kept
        work = _Case(job)
        record = work.convert() if job.case.dicom is None else work.convert_series(job.case.dicom)
        return CaseResult(case, record, notes=tuple(work.notes))
    except ImageError as error:
        return CaseResult(case, problem=_shown(str(error), job))
    except (OutputError, KeyboardInterrupt):
        raise
    except Exception as error:  # a file that breaks a reader in a way nobody thought of costs its case, not the run
        return CaseResult(case, problem=f"cannot be read: unexpected {type(error).__name__}: {error}")


def _shown(message: str, job: CaseJob) -> str:
    """A message with paths as they are within the source; a DICOM source's may hold identifiers."""
    if job.case.dicom is not None and job.case.mask is not None:
        message = message.replace(str(job.case.mask), "its mask")
    return message.replace(f"{job.root}{os.sep}", "").removeprefix(f"{job.case.case}: ")


@dataclass
class _Case:
    """The work on one case."""

    job: CaseJob
    written: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def convert_series(self, series: DicomCase) -> CaseRecord:
        """Convert a DICOM series and its masks."""
        case, folder = self.job.case, self.job.folder
        series = replace(series, case=case.case)
        (name,), mask_name = targets(case, 1)
        self._refuse_existing([name, *([mask_name] if mask_name else [])])
        digest, shown = series_sha256(series), series_name(self.job, series)
        labels: list[int] = []
        try:
            self.written.append(folder / name)
            volume, repairs = write_series(series, folder / name)
            self.notes += volume.problems
            check_case_content([folder / name], self.job.channels, case.case)
            record = FileRecord(case.case, shown, digest, file_sha256(folder / name), "written", repairs)
            files = {name: record}
            if mask_name is not None:
                files[mask_name] = self._series_mask(series, volume, mask_name, folder / name)
                labels = labels_in(folder / mask_name)
            return CaseRecord(case.case, files, labels, dict(case.identifiers))
        except BaseException:
            self._remove_written()
            raise

    def _series_mask(self, series: DicomCase, volume: DicomVolume, name: str, image: Path) -> FileRecord:
        if self.job.case.mask is not None:
            _check_file(self.job.case.mask)
            repairs = [r for r in find_repairs(self.job.case.mask, image) if r.file == self.job.case.mask]
            return self._mask(self.job.case.mask, name, repairs, image)
        self.written.append(self.job.folder / name)
        changed, other = write_masks(series, volume, dict(self.job.structures), self.job.folder / name)
        if other:
            self.notes.append(f"structures without a label are left out: {listing(sorted(set(other)))}")
        return FileRecord(
            self.job.case.case, series_name(self.job, series), series_sha256(series),
            file_sha256(self.job.folder / name), "written", changed,
        )  # fmt: skip

    def convert(self) -> CaseRecord:
        """Check, repair and write; a case whose files are not sound leaves none."""
        case = self.job.case
        for path in (*case.images, *([case.mask] if case.mask else [])):
            _check_file(path)
        with contextlib.ExitStack() as stack:
            images, split = self._volumes(stack)
            if len(images) != self.job.channels:
                raise ImageError(f"expected {self.job.channels} channel(s) as in other cases, found {len(images)}.")
            names, mask_name = targets(case, len(images))
            self._refuse_existing([*names, *([mask_name] if mask_name else [])])
            found = [find_repairs(None, path) for path in images[1:]]
            first = find_repairs(case.mask, images[0])
            repairs = [[r for r in first if r.file == images[0]], *found]
            try:
                return self._write(images, names, repairs, mask_name, [r for r in first if r.file == case.mask], split)
            except BaseException:
                self._remove_written()
                raise

    def _write(
        self,
        images: Sequence[Path],
        names: Sequence[str],
        repairs: Sequence[Sequence[Repair]],
        mask_name: str | None,
        mask_repairs: Sequence[Repair],
        split: Mapping[Path, Path],
    ) -> CaseRecord:
        case, folder = self.job.case, self.job.folder
        files: dict[str, FileRecord] = {}
        labels: list[int] = []
        for path, name, of_file in zip(images, names, repairs, strict=True):
            files[name] = self._file(path, name, of_file, None, split.get(path))
        check_case_content([folder / name for name in names], self.job.channels, case.case)
        if mask_name is not None and case.mask is not None:
            files[mask_name] = self._mask(case.mask, mask_name, mask_repairs, folder / names[0])
            labels = labels_in(folder / mask_name)
        return CaseRecord(case.case, files, labels)

    def _remove_written(self) -> None:
        for path in self.written:
            path.unlink(missing_ok=True)

    def _volumes(self, stack: contextlib.ExitStack) -> tuple[list[Path], dict[Path, Path]]:
        """One file a channel; those of several volumes are split by nnU-Net's converter of the decathlon."""
        case = self.job.case
        if not case.split_volumes or math.prod(read_nifti_header(case.images[0]).shape[3:]) == 1:
            return list(case.images), {}
        from nnunet_3dct.upstream import split_4d_nifti

        temporary = stack.enter_context(tempfile.TemporaryDirectory(dir=self.job.folder, prefix=TEMPORARY))
        split_4d_nifti(str(case.images[0]), temporary)
        files = sorted(Path(temporary).glob(f"*{ENDING}"))
        return files, dict.fromkeys(files, case.images[0])

    def _refuse_existing(self, names: Sequence[str]) -> None:
        """Refuse to write over a file that no earlier run has written, or that has been changed since."""
        recorded = self.job.earlier.files if self.job.earlier is not None else {}
        for name in names:
            path = self.job.folder / name
            if name not in recorded:
                there = os.path.lexists(path)
            else:
                there = path.is_file() and file_sha256(path) != recorded[name].sha256
            if there:
                raise ImageError(f"{name}: expected no such file in the dataset, found one. Move it away.")

    def _mask(self, path: Path, name: str, repairs: Sequence[Repair], image: Path) -> FileRecord:
        """Write the mask, on the grid of the image that was written."""
        label_map = dict(self.job.label_map)
        if label_map:
            content = read_content(path) if path.name.lower().endswith(NIFTI) else content_from_image(path)
            table = stored_labels(content, str(path))
            moved = [n for n, label in enumerate(table.labels) if label_map.get(int(label), label) != label]
            shown = listing([f"{table.labels[n]} -> {label_map[int(table.labels[n])]}" for n in moved], 5)
            mapped = Repair(MAPPED, path, int(table.counts[moved].sum()), shown)
            repairs = [*repairs, *([mapped] if moved else [])]
        return self._file(path, name, repairs, read_content(image) if repairs else None, None, label_map)

    def _file(
        self,
        path: Path,
        name: str,
        repairs: Sequence[Repair],
        image: NiftiContent | None,
        split: Path | None,
        label_map: Mapping[int, int] | None = None,
    ) -> FileRecord:
        """Write one file of the dataset."""
        source, target = split or path, self.job.folder / name
        notes: list[RepairRecord] = [{"kind": r.kind, "count": r.count, "found": r.found} for r in repairs]
        record = FileRecord(self.job.case.case, file_name(self.job, source), "", "", "written", notes)
        self.written.append(target)
        if split is not None:
            record.repairs.append({"kind": SPLIT, "count": 1, "found": f"volume {int(name[-11:-7])} of several"})
        if path.name.endswith(ENDING) and not repairs:
            record.how = record.how if split else HOW[self.job.transfer]
            record.sha256 = transfer_file(path, target, COPY if split else self.job.transfer)
            record.source_sha256 = file_sha256(source) if split else record.sha256
            return record
        record.source_sha256 = file_sha256(source)
        content = read_content(path) if path.name.lower().endswith(NIFTI) else content_from_image(path)
        if repairs:
            repaired = repair(content, repairs, image, str(path), label_map)
            content, record.undo = repaired.content, repaired.undo
            if repaired.voxels is not None:
                record.undo["voxels"] = keep_voxels(self.job.folder, name, repaired.voxels)
        elif not path.name.endswith(ENDING):
            record.repairs.append({"kind": FORMAT, "count": 1, "found": path.name[len(stem_of(path)) :]})
        record.sha256 = write_content(content, target)
        return record


def labels_in(mask: Path) -> list[int]:
    """Labels that a mask of whole numbers holds.

    Raises:
        ImageError: there are negative ones.
    """
    labels = [int(label) for label in np.unique(read_content(mask).voxels)]
    if labels[0] < 0:
        raise ImageError(f"{mask.name}: expected labels from 0, found {labels[0]}. Correct the mask.")
    return labels


def _check_file(path: Path) -> None:
    """A whole, readable file.

    Raises:
        ImageError: it is not; see :func:`~nnunet_3dct.formats.image_files.check_image_file`.
    """
    try:
        check_image_file(path)
    except OSError as error:  # no permission, a medium that fails
        raise ImageError(f"{path}: cannot be read: {error}.") from error
