"""The series that a result refers to: where its frames lie, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from nnunet_3dct.dicom.tags import quiet
from nnunet_3dct.errors import ImageError

# of the patient, the study and a trial, copied into every result as they are
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber",
)  # fmt: skip
_OPTIONAL = (
    "IssuerOfPatientID", "OtherPatientIDsSequence", "PatientBirthTime", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "StudyDescription", "ProcedureCodeSequence",
    "IssuerOfAccessionNumberSequence", "PatientAge", "PatientSize", "PatientWeight", "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)  # fmt: skip
_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "Modality", "SeriesNumber", "InstanceNumber", "Rows", "Columns", "NumberOfFrames",
    "ImageType", "PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionOrganizationSequence",
    "DimensionIndexSequence", "DimensionOrganizationType",
)  # fmt: skip
_SAME_PLACE = 1e-3  # mm
_DIGITS = 1e-3  # direction cosines of frames that count as parallel


@dataclass(frozen=True)
class Frame:
    """One slice of the series.

    Attributes:
        image: number of its data set in :attr:`Source.images`.
        number: of the frame in a multi-frame image, from 1; None in a classic series.
        position: of the middle of its first pixel, (x, y, z) in mm.
        spacing: between columns and between rows, in mm.
    """

    image: int
    number: int | None
    position: np.ndarray
    spacing: tuple[float, float]
    columns: int
    rows: int


@dataclass(frozen=True)
class Source:
    """A series of images, sorted along the normal of its slices.

    Attributes:
        images: their data sets without pixels and without anything that names the patient.
        identity: what names the patient and the study, for the results.
        frames: in the order of ``images``; of a multi-frame image in that of the file.
        axes: directions of rows, columns and slices as the columns of a 3 x 3 matrix.
    """

    images: list[Dataset]
    identity: Dataset
    frames: list[Frame]
    axes: np.ndarray

    @property
    def first(self) -> Dataset:
        """Any of the images, for what all have in common."""
        return self.images[0]

    @property
    def modality(self) -> str:
        """Such as CT."""
        return str(self.first.Modality)

    @property
    def slice_order(self) -> list[int]:
        """Numbers of the frames, sorted along the normal."""
        return [int(n) for n in np.argsort([frame.position @ self.axes[:, 2] for frame in self.frames], kind="stable")]

    @property
    def slice_spacing(self) -> float | None:
        """Distance of the slices in mm; None of a single one and where the distances differ."""
        along = np.sort([float(frame.position @ self.axes[:, 2]) for frame in self.frames])
        steps = np.diff(along)
        even = len(steps) > 0 and steps.min() > 0 and np.allclose(steps, steps.mean(), rtol=1e-2, atol=1e-3)
        return float(steps.mean()) if even else None

    def series_number(self, which: int) -> int:
        """For a result: that of the source with two digits behind it."""
        own = int(self.first.get("SeriesNumber") or 0)
        return own * 100 + which if 0 < own < 10**6 else 9000 + which

    def adopt(self, result: Dataset) -> None:
        """Make ``result`` one of this patient and study, in UTF-8."""
        result.SpecificCharacterSet = "ISO_IR 192"
        for element in self.identity:
            result[element.tag] = element


def read_source(files: Sequence[Path]) -> Source:
    """Read the headers of a series.

    Args:
        files: of one series, in any order, or one multi-frame image.

    Raises:
        ImageError: a file is no DICOM image, they are of several series, or their slices are not parallel. Nothing
            that names the patient is in the message.
    """
    if not files:
        raise ImageError("DICOM result: expected the files of a series, found none.")
    with quiet():
        headers = [_header(Path(path)) for path in files]
        _check_one_series(headers)
        identity = _identity(headers[0])
        images = [_image(header) for header in headers]
        frames, axes = _frames(images)
    if len(images) > 1:
        images = _sorted(images, frames, axes)
        frames, axes = _frames(images)
    source = Source(images, identity, frames, axes)
    for image in images:
        if "SharedFunctionalGroupsSequence" not in image and not image.get("SliceThickness"):
            image.SliceThickness = f"{source.slice_spacing or 1.0:.8g}"
    return source


def labels_on_frames(labels: SimpleITK.Image, source: Source) -> np.ndarray:
    """Labels at the pixels of each frame, ``(frames, rows, columns)``.

    The grid of the labels may have any orientation: every pixel takes the label of the voxel that its middle lies in.
    Where the grid is that of the series, turned or not, that is exact.

    Raises:
        ImageError: the labels lie somewhere else.
    """
    array = np.zeros((len(source.frames), source.frames[0].rows, source.frames[0].columns),
                     SimpleITK.GetArrayViewFromImage(labels).dtype)  # fmt: skip
    thickness = source.slice_spacing or labels.GetSpacing()[2]
    for number, frame in enumerate(source.frames):
        plane = SimpleITK.Image(frame.columns, frame.rows, 1, labels.GetPixelID())
        plane.SetOrigin(frame.position.tolist())
        plane.SetSpacing([*frame.spacing, thickness])
        plane.SetDirection(source.axes.ravel().tolist())
        found = SimpleITK.Resample(labels, plane, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0)
        array[number] = SimpleITK.GetArrayViewFromImage(found)[0]
    _check_overlap(labels, array, source, thickness)
    return array


def _check_overlap(labels: SimpleITK.Image, array: np.ndarray, source: Source, thickness: float) -> None:
    view = SimpleITK.GetArrayViewFromImage(labels)
    volume = float(np.count_nonzero(view) * np.prod(labels.GetSpacing()))
    there = float(np.count_nonzero(array) * np.prod(source.frames[0].spacing) * thickness)
    if there < volume / 2:
        raise ImageError(
            f"DICOM result: expected labels on the slices of the series, found {there / 1000:.3g} of their "
            f"{volume / 1000:.3g} ml there. Give the series that the image was made from."
        )


def _sorted(images: Sequence[Dataset], frames: Sequence[Frame], axes: np.ndarray) -> list[Dataset]:
    """Along the normal; of slices at one place, which archives send twice, the first."""
    along = [float(frame.position @ axes[:, 2]) for frame in frames]
    kept: list[int] = []
    for number in np.argsort(along, kind="stable").tolist():
        if not kept or along[number] - along[kept[-1]] > _SAME_PLACE:
            kept.append(number)
    return [images[number] for number in kept]


def _header(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError) as error:
        raise ImageError(f"DICOM result: {path.name} of the source series cannot be read as DICOM.") from error


def _check_one_series(headers: Sequence[Dataset]) -> None:
    series = {str(header.get("SeriesInstanceUID", "")) for header in headers}
    if len(series) != 1 or "" in series:
        raise ImageError(f"DICOM result: expected files of one series, found those of {len(series)}.")
    if len(headers) > 1 and any(int(header.get("NumberOfFrames") or 1) > 1 for header in headers):
        raise ImageError(
            f"DICOM result: expected single slices or one multi-frame image, found {len(headers)} files with "
            "multi-frame images among them."
        )


def _identity(header: Dataset) -> Dataset:
    """Names, numbers and dates of patient and study; empty where a required one is missing or cannot be decoded."""
    found = Dataset()
    found.SpecificCharacterSet = header.get("SpecificCharacterSet", "ISO_IR 100")
    for keyword in (*_REQUIRED, *_OPTIONAL):
        if keyword in header:
            try:
                found[keyword] = header[keyword]
            except Exception:  # pydicom has many for damaged values; the result does without
                continue
    with suppress(Exception):  # an unknown character set: bytes are kept as Latin-1
        found.decode()
    del found.SpecificCharacterSet
    for keyword in _REQUIRED:
        if keyword not in found:
            setattr(found, keyword, "")
    return found


def _image(header: Dataset) -> Dataset:
    """What says where the image lies."""
    image = Dataset()
    for keyword in _IMAGE:
        if keyword in header:
            image[keyword] = header[keyword]
    image.file_meta = header.file_meta
    missing = [k for k in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Rows", "Columns") if k not in image]
    if missing:
        raise ImageError(f"DICOM result: expected images with {', '.join(missing)}, found one without.")
    if not image.get("FrameOfReferenceUID"):  # some archives drop it; what refers to the images still holds
        image.FrameOfReferenceUID = image.SeriesInstanceUID
    image.setdefault("PositionReferenceIndicator", "")
    image.setdefault("Modality", "OT")
    for keyword in _REQUIRED:
        setattr(image, keyword, "")
    return image


def _frames(images: Sequence[Dataset]) -> tuple[list[Frame], np.ndarray]:
    frames, axes = [], []
    for place, image in enumerate(images):
        count = int(image.get("NumberOfFrames") or 1)
        groups = image.get("PerFrameFunctionalGroupsSequence")
        for number in range(count):
            own = groups[number] if groups else None
            position = _value(image, own, "PlanePositionSequence", "ImagePositionPatient", 3)
            orientation = _value(image, own, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
            rows, columns = _value(image, own, "PixelMeasuresSequence", "PixelSpacing", 2)
            frames.append(
                Frame(place, number + 1 if groups else None, position, (columns, rows), image.Columns, image.Rows)
            )
            axes.append(orientation)
    first = axes[0]
    size = frames[0].columns, frames[0].rows
    if any(not np.allclose(other, first, atol=_DIGITS) for other in axes):
        raise ImageError("DICOM result: expected parallel slices in the series, found slices that are not.")
    if any((frame.columns, frame.rows) != size for frame in frames):
        raise ImageError("DICOM result: expected slices of one size in the series, found several sizes.")
    row, column = first[:3] / np.linalg.norm(first[:3]), first[3:] / np.linalg.norm(first[3:])
    return frames, np.stack([row, column, np.cross(row, column)], axis=1)


def _value(image: Dataset, frame: Dataset | None, group: str, keyword: str, length: int) -> np.ndarray:
    """Of a frame: its own, that of all frames, or that of a classic image."""
    shared = image.get("SharedFunctionalGroupsSequence")
    for holder in (frame, shared[0] if shared else None):
        if holder is not None and group in holder and keyword in holder[group].value[0]:
            value = holder[group].value[0][keyword].value
            break
    else:
        value = image.get(keyword)
    if value is None or len(value) != length:
        raise ImageError(f"DICOM result: expected {keyword} with {length} numbers in every slice, found one without.")
    return np.asarray([float(number) for number in value])
