"""Tags of DICOM files, read without pixels and without a word on the terminal.

pydicom's warnings quote the values that they complain about, which may be a patient's name.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from nnunet_3dct.formats.file_kinds import first_bytes

_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")  # of a file without preamble, either byte order
START = 132  # bytes that tell a DICOM file
# all that grouping, sorting and naming need
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "ImageType", "Modality", "SpecificCharacterSet",
    "PatientName", "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "PatientBirthDate",
    "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AccessionNumber", "StudyID",
    "ReferringPhysicianName", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "RescaleSlope", "RescaleIntercept", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames",
    "PhotometricInterpretation", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence",
]  # fmt: skip


@dataclass(frozen=True)
class TaggedFile:
    """Tags of one file.

    Attributes:
        path: of the file.
        tags: those that this package reads.
        syntax: transfer syntax, None where the file does not say.
        pixel_bytes: bytes from the pixel data to the end of the file; None where that is not known (deflated).
    """

    path: Path
    tags: Dataset
    syntax: UID | None
    pixel_bytes: int | None


class NotDicomError(ValueError):
    """The file is no DICOM file, or a damaged one; the message says which."""


def read_tags(path: Path) -> TaggedFile:
    """Read the tags of a file, with or without the preamble of 128 bytes.

    Raises:
        NotDicomError: it is none, or breaks off in the tags.
    """
    if not looks_like_dicom(path):
        raise NotDicomError("no DICOM file")
    size = path.stat().st_size
    try:
        with quiet(), path.open("rb") as stream:
            tags = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            end = stream.tell()
            list(tags)  # converts every value now, where warnings are silenced
            meta = getattr(tags, "file_meta", None)
            syntax = None if meta is None else meta.get("TransferSyntaxUID")
            syntax = None if syntax is None else UID(str(syntax))
    except Exception:  # pydicom raises whatever the damaged bytes lead to, and quotes them
        raise NotDicomError("a damaged DICOM file, whose tags cannot be read") from None
    if not tags and (meta is None or not meta):
        raise NotDicomError("a damaged DICOM file without tags")
    deflated = syntax == DeflatedExplicitVRLittleEndian
    return TaggedFile(path, tags, syntax, None if deflated else size - end)


def read_whole(path: Path) -> Dataset:
    """The whole data set, pixels included.

    Raises:
        NotDicomError: it is none, or damaged.
    """
    try:
        with quiet():
            return pydicom.dcmread(path, force=True)
    except Exception:
        raise NotDicomError("a damaged DICOM file") from None


def looks_like_dicom(path: Path) -> bool:
    """Whether the first bytes are those of a DICOM file."""
    return starts_like_dicom(first_bytes(path, START))


def starts_like_dicom(start: bytes) -> bool:
    """Whether a file whose first :data:`START` bytes are ``start`` looks like DICOM."""
    if start[128:132] == b"DICM":
        return True
    # without a preamble: a first tag of a low group, as an explicit (two letters) or implicit (a length) element
    return len(start) == START and start[:2] in _FIRST_GROUPS and (start[4:6].isalpha() or start[6:8] == b"\0\0")


class _Silence:
    """pydicom's switches are those of the whole process: the first thread that enters turns them, the last one back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._switches = ExitStack()

    def enter(self) -> None:
        with self._lock:
            self._threads += 1
            if self._threads == 1:
                logger = logging.getLogger("pydicom")
                self._switches.callback(setattr, logger, "disabled", logger.disabled)
                self._switches.enter_context(warnings.catch_warnings())
                self._switches.enter_context(pydicom.config.disable_value_validation())
                logger.disabled = True
                warnings.simplefilter("ignore")

    def leave(self) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._switches.close()


_SILENCE = _Silence()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom, which otherwise quotes what it complains about."""
    _SILENCE.enter()
    try:
        yield
    finally:
        _SILENCE.leave()


def text(tags: Dataset, keyword: str) -> str:
    """Value as text without blanks at its ends; empty where it is missing."""
    value = tags.get(keyword)
    return "" if value is None else str(value).strip("\0 ")


def numbers(tags: Dataset, keyword: str) -> tuple[float, ...]:
    """Values as numbers; empty where they are missing or no numbers."""
    value = tags.get(keyword)
    if value is None or value == "":
        return ()
    try:
        values = value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]
        return tuple(float(item) for item in values)
    except (TypeError, ValueError):
        return ()


def number(tags: Dataset, keyword: str) -> float | None:
    """One number; None where it is missing or none."""
    values = numbers(tags, keyword)
    return values[0] if values else None


def items(tags: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; empty where it is missing."""
    value = tags.get(keyword)
    return [] if value is None else list(value)
