"""Tags of DICOM files, read without pixels and without a word on the terminal.

pydicom's warnings quote the values that they complain about, which may be a patient's name.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from nnunet_3dct.formats.file_kinds import first_bytes

_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")  # of a file without preamble, either byte order
_SHORTEST = 132
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
    except Exception as error:  # pydicom raises whatever the damaged bytes lead to
        raise NotDicomError("a damaged DICOM file, whose tags cannot be read") from error
    meta = getattr(tags, "file_meta", None)
    syntax = None if meta is None else meta.get("TransferSyntaxUID")
    if not tags and (meta is None or not meta):
        raise NotDicomError("a damaged DICOM file without tags")
    deflated = syntax == DeflatedExplicitVRLittleEndian
    return TaggedFile(path, tags, None if syntax is None else UID(syntax), None if deflated else size - end)


def read_whole(path: Path) -> Dataset:
    """The whole data set, pixels included.

    Raises:
        NotDicomError: it is none, or damaged.
    """
    try:
        with quiet():
            return pydicom.dcmread(path, force=True)
    except Exception as error:
        raise NotDicomError("a damaged DICOM file") from error


def looks_like_dicom(path: Path) -> bool:
    """Whether the first bytes are those of a DICOM file."""
    start = first_bytes(path, _SHORTEST)
    if start[128:132] == b"DICM":
        return True
    # without a preamble: a first tag of a low group, as an explicit (two letters) or implicit (a length) element
    return len(start) == _SHORTEST and start[:2] in _FIRST_GROUPS and (start[4:6].isalpha() or start[6:8] == b"\0\0")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom, which otherwise quotes what it complains about."""
    logger = logging.getLogger("pydicom")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


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
