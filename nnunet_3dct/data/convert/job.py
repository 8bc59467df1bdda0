"""One case to convert, what its files are called, and whether an earlier run has done it already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.data.convert.dicom_tree import series_key, series_sha256
from nnunet_3dct.data.convert.source import SourceCase, relative
from nnunet_3dct.data.convert.transfer import COPY
from nnunet_3dct.dicom.cases import DicomCase
from nnunet_3dct.dicom.identifiers import key
from nnunet_3dct.formats.conversion import CaseRecord, file_sha256

ENDING = ".nii.gz"


@dataclass(frozen=True)
class CaseJob:
    """One case to convert; small, since it is sent to another process.

    Attributes:
        case: of the source.
        root: of the source, from which recorded names start.
        folder: of the dataset.
        channels: that every case has.
        transfer: ``copy``, ``hardlink`` or ``symlink``, for files that need no repair.
        earlier: what an earlier run recorded of the case.
        label_map: labels of masks that become others.
        structures: name of a structure in DICOM masks, folded, and its label.
    """

    case: SourceCase
    root: Path
    folder: Path
    channels: int
    transfer: str = COPY
    earlier: CaseRecord | None = None
    label_map: tuple[tuple[int, int], ...] = ()
    structures: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class CaseResult:
    """What became of a case: its record, or the problem; ``kept`` from an earlier run; ``notes`` worth reading."""

    case: str
    record: CaseRecord | None = None
    problem: str | None = None
    kept: bool = False
    notes: tuple[str, ...] = ()


def targets(case: SourceCase, channels: int) -> tuple[list[str], str | None]:
    """Names in the dataset of the images and of the mask of a case."""
    images = [f"images{case.part}/{case.case}_{number:04d}{ENDING}" for number in range(channels)]
    return images, f"labels{case.part}/{case.case}{ENDING}" if case.has_mask else None


def kept_result(job: CaseJob, earlier: CaseRecord) -> CaseResult | None:
    """The earlier result where it still holds; None where the case is to be converted again."""
    images, mask = targets(job.case, 1 if job.case.dicom is not None else len(job.case.images))
    expected = {*images, *([mask] if mask else [])}
    if not job.case.split_volumes and set(earlier.files) != expected:
        stale = [name for name in earlier.files if (job.folder / name).exists() and name not in expected]
        if stale:
            return CaseResult(
                job.case.case,
                problem=f"was converted as {', '.join(sorted(stale))} before, and now belongs elsewhere. Remove these "
                "files, or overwrite them.",
            )
        return None
    hashes = _source_hashes(job)
    for name, record in earlier.files.items():
        target = job.folder / name
        if not target.is_file():
            return None
        if hashes.get(record.source) != record.source_sha256:
            reason = f"{record.source} has changed since it was converted"
        elif file_sha256(target) != record.sha256:
            reason = f"{name} has been changed since it was written"
        else:
            continue
        return CaseResult(job.case.case, problem=f"{reason}. Remove {name} to have it converted again.")
    return CaseResult(job.case.case, earlier, kept=True)


def _source_hashes(job: CaseJob) -> dict[str, str]:
    """What records call the files of a case -> their hash now."""
    case = job.case
    paths = [path for path in (*(() if case.dicom else case.images), case.mask) if path is not None]
    hashes = {file_name(job, path): file_sha256(path) for path in paths if path.is_file()}
    return hashes if case.dicom is None else {**hashes, series_name(job, case.dicom): series_sha256(case.dicom)}


def file_name(job: CaseJob, path: Path) -> str:
    """What records call a file: its path within the source; a hash of it where that may hold identifiers."""
    name = relative(path, job.root)
    return f"mask {key(name)}" if job.case.dicom is not None and not job.case.identifiers else name


def series_name(job: CaseJob, series: DicomCase) -> str:
    """What records call a series: its key, or its folder where identifiers are kept."""
    return relative(series.files[0].parent, job.root) if job.case.identifiers else series_key(series)
