"""Repairs made and undone in the files of a dataset, with the record that undoes them in its ``conversion.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nnunet_3dct
from nnunet_3dct.data.convert.run import Progress, remove_temporary, run_jobs
from nnunet_3dct.data.raw_cases import RawCase, find_raw_cases
from nnunet_3dct.data.repairing import repair, undo_repairs_of
from nnunet_3dct.data.repairs import COMPRESSION, Repair, find_repairs
from nnunet_3dct.errors import ImageError, SettingsError
from nnunet_3dct.formats.conversion import (
    NAME,
    CaseRecord,
    Conversion,
    FileRecord,
    RepairRecord,
    file_sha256,
    keep_voxels,
    read_conversion,
    write_conversion,
)
from nnunet_3dct.formats.dataset_json import read_dataset_json
from nnunet_3dct.formats.geometry import NIFTI
from nnunet_3dct.formats.image_files import check_image_file
from nnunet_3dct.formats.nifti_content import read_content, write_content

REPAIR = "repair"


@dataclass(frozen=True)
class InPlaceResult:
    """What was done in a dataset.

    Attributes:
        folder: of the dataset.
        files: name of each file that was changed -> the repairs that were made or undone.
        failed: case or file -> why nothing was done.
    """

    folder: Path
    files: dict[str, list[RepairRecord]]
    failed: dict[str, str]


@dataclass(frozen=True)
class _Job:
    case: RawCase
    folder: Path
    reader: str | None


@dataclass(frozen=True)
class _Done:
    case: str
    files: dict[str, FileRecord]
    problem: str | None = None


def repair_dataset(folder: Path, *, num_processes: int = 1, progress: Progress | None = None) -> InPlaceResult:
    """Repair the images and masks of a raw dataset in place.

    Each file is replaced as a whole, so that links to another place are left as they are, and :func:`undo_repairs`
    brings it back. A case with something that cannot be put right is left alone.

    Raises:
        SettingsError: the folder is no raw dataset.
        OutputError: a file cannot be written.
    """
    folder = Path(folder)
    description, problems = read_dataset_json(folder)
    if description is None:
        raise SettingsError(" ".join(problems))
    cases = find_raw_cases(folder, description)
    reader = description.get("overwrite_image_reader_writer")
    conversion = _conversion(folder)
    remove_temporary(folder)
    result = InPlaceResult(folder, {}, {})
    jobs = [_Job(case, folder, reader) for case in (*cases.training, *cases.held_out)]
    for done in run_jobs(_repair_case, jobs, num_processes, progress):
        if done.problem is not None:
            result.failed[done.case] = done.problem
        if done.files:
            record = conversion.cases.setdefault(done.case, CaseRecord(done.case, {}, []))
            record.files |= done.files
            result.files.update({name: file.repairs for name, file in done.files.items()})
            write_conversion(conversion, folder)  # after each, as the run may be stopped
    return result


def undo_repairs(folder: Path, *, num_processes: int = 1, progress: Progress | None = None) -> InPlaceResult:
    """Undo the repairs that ``conversion.json`` of a dataset records: each file gets the content it had before.

    Args:
        folder: of the dataset.
        num_processes: is not used; undoing is quick.
        progress: called after each file with the number of those done and of all.

    Raises:
        SettingsError: the dataset has no record of a conversion.
        OutputError: a file cannot be written.
    """
    folder = Path(folder)
    conversion = read_conversion(folder)
    result = InPlaceResult(folder, {}, {})
    files = list(conversion.repaired())
    for done, (name, record) in enumerate(files, start=1):
        try:
            _undo(folder / name, name, record)
        except (ImageError, OSError) as error:
            result.failed[name] = str(error)
        else:
            result.files[name] = record.repairs
            write_conversion(conversion, folder)
        if progress is not None:
            progress(done, len(files))
    return result


def _conversion(folder: Path) -> Conversion:
    if (folder / NAME).is_file():
        return read_conversion(folder)
    return Conversion(str(folder.resolve()), REPAIR, {}, nnunet_3dct.__version__)


def _repair_case(job: _Job) -> _Done:
    case = job.case
    files: dict[str, FileRecord] = {}
    try:
        for path in (*case.images, *([case.label] if case.label else [])):
            check_image_file(path, reader=job.reader)
        first = find_repairs(case.label, case.images[0], reader=job.reader)
        others = [repair for path in case.images[1:] for repair in find_repairs(None, path, reader=job.reader)]
        for path in (*case.images, *([case.label] if case.label else [])):
            repairs = [repair for repair in (*first, *others) if repair.file == path]
            if repairs:
                name = path.relative_to(job.folder).as_posix()
                files[name] = _repair_file(path, name, repairs, case.images[0], job)
    except ImageError as error:
        return _Done(case.case, files, str(error))
    except ValueError:
        return _Done(case.case, files, "lies outside the folder of the dataset, and is left alone")
    return _Done(case.case, files)


def _repair_file(path: Path, name: str, repairs: list[Repair], image: Path, job: _Job) -> FileRecord:
    if not path.name.lower().endswith(NIFTI):
        raise ImageError(
            f"{path}: expected a NIfTI file, as no other is repaired in place. Convert the dataset instead."
        )
    before = file_sha256(path)
    grid = None if path == image else read_content(image)
    repaired = repair(read_content(path), repairs, grid, str(path))
    undo = repaired.undo
    if repaired.voxels is not None:
        undo["voxels"] = keep_voxels(job.folder, name, repaired.voxels)
    digest = write_content(repaired.content, path)
    notes: list[RepairRecord] = [{"kind": r.kind, "count": r.count, "found": r.found} for r in repairs]
    return FileRecord(job.case.case, name, before, digest, "repaired", notes, undo)


def _undo(path: Path, name: str, record: FileRecord) -> None:
    assert record.undo is not None
    if not path.is_file():
        raise ImageError("is not there any more")
    kept = record.undo.get("voxels")
    voxels = (path.parents[1] / kept).read_bytes() if kept else None
    original = undo_repairs_of(read_content(path), record.undo, voxels, name)
    plain = any(repair["kind"] == COMPRESSION for repair in record.repairs)
    record.sha256 = write_content(original, path, compressed=not plain)
    record.undone = True
