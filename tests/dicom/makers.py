"""Makers of DICOM series from small arrays, with the habits of several vendors.

Arrays are indexed (Z, Y, X): slice, row, column. Spacing is (x, y, z) in mm: between columns, rows and slices.
The third axis of the grid is always the normal of the slices (row direction x column direction), as ITK takes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SPACING = (0.8, 0.9, 2.5)
ORIGIN = (-12.0, 7.0, 40.0)


@dataclass(frozen=True)
class Patient:
    """What must never leave the source: a recognisable patient."""

    name: str = "Findmichnicht^Waltraud"
    number: str = "KH-4711-0815"
    birth: str = "19510329"
    study_date: str = "20230717"
    accession: str = "ACC99887766"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts to look for in outputs and messages."""
        return (*self.name.split("^"), self.number, self.birth, self.study_date, self.accession)


def axis_orientations() -> dict[str, tuple[float, ...]]:
    """The 24 orientations whose axes are those of the patient: name -> row and column direction."""
    letters = {0: "LR", 1: "PA", 2: "SI"}
    found: dict[str, tuple[float, ...]] = {}
    for (row, column), signs in itertools.product(
        itertools.permutations(range(3), 2), itertools.product((1, -1), (1, -1))
    ):
        cosines = np.zeros(6)
        cosines[row], cosines[3 + column] = signs
        name = "".join(letters[axis][sign < 0] for axis, sign in zip((row, column), signs, strict=True))
        found[name] = tuple(cosines.tolist())
    return found


def oblique() -> tuple[float, ...]:
    """An orientation turned about all three axes."""
    turn = np.eye(3)
    for first, second, angle in ((0, 1, 0.3), (1, 2, -0.4), (0, 2, 0.2)):
        step = np.eye(3)
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    return tuple(np.round(turn[:, :2].T.ravel(), 9).tolist())


def phantom(shape: Sequence[int] = (6, 9, 11)) -> np.ndarray:
    """HU without any symmetry, int16: ramps of three slopes, an organ, and a lesion near one corner."""
    z, y, x = np.indices(tuple(shape))
    array = (-200 + 3 * x + 11 * y + 37 * z).astype(np.int16)
    array[phantom_labels(shape) == 1] += 400
    array[phantom_labels(shape) == 2] += 800
    return array


def phantom_labels(shape: Sequence[int] = (6, 9, 11)) -> np.ndarray:
    """Labels of :func:`phantom`, uint8: an organ (1) and a lesion (2), no mirror image or turn of themselves."""
    labels = np.zeros(tuple(shape), np.uint8)
    n_z, n_y, n_x = shape
    labels[1 : n_z - 2, 1 : n_y - 3, 2 : n_x - 1] = 1
    labels[1:2, 1 : n_y - 2, 2:4] = 1
    labels[1:3, 1:3, n_x - 4 : n_x - 1] = 2
    labels[1, 1, 2] = 2
    return labels


def direction_matrix(orientation: Sequence[float]) -> np.ndarray:
    """3 x 3, columns x, y, z of the grid."""
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def expected_image(
    array: np.ndarray,
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = SPACING,
    origin: Sequence[float] = ORIGIN,
) -> SimpleITK.Image:
    """What a series of these arguments is to be read as."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in spacing])
    image.SetOrigin([float(value) for value in origin])
    image.SetDirection(direction_matrix(orientation).ravel().tolist())
    return image


def series_datasets(
    array: np.ndarray,
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = SPACING,
    origin: Sequence[float] = ORIGIN,
    distances: Sequence[float] | None = None,
    tilt: float = 0.0,
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = -1024.0,
    descending: bool = False,
    modality: str = "CT",
    patient: Patient | None = None,
    tags: Mapping[str, Any] | None = None,
) -> list[Dataset]:
    """Data sets of a classic series, one a slice, to be changed before :func:`save` writes them.

    Args:
        array: HU (Z, Y, X); stored as uint16 with slope and intercept.
        orientation: row and column direction.
        spacing, origin: of the grid.
        distances: of the slices from the first one along the normal in mm, in place of ``spacing[2]``.
        tilt: of the gantry in degrees: slices are shifted along the column direction.
        slope, intercept: one for all slices or one a slice.
        descending: instance numbers run against the positions.
        modality: CT, MR or PT.
        patient: who was examined.
        tags: set in every data set, keyword -> value.
    """
    patient = patient or Patient()
    matrix = direction_matrix(orientation)
    steps = np.arange(len(array)) * spacing[2] if distances is None else np.asarray(distances, float)
    slopes, intercepts = (np.broadcast_to(np.asarray(value, float), (len(array),)) for value in (slope, intercept))
    shared = _shared(patient, modality)
    found = []
    for number, step in enumerate(steps):
        dataset = _copy(shared)
        place = np.asarray(origin, float) + step * matrix[:, 2] + step * np.tan(np.deg2rad(tilt)) * matrix[:, 1]
        dataset.SOPInstanceUID = generate_uid()
        dataset.InstanceNumber = len(array) - number if descending else number + 1
        dataset.ImagePositionPatient = [_decimal(value) for value in place]
        dataset.ImageOrientationPatient = [_decimal(value) for value in orientation]
        dataset.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
        dataset.SliceThickness = _decimal(spacing[2])
        dataset.GantryDetectorTilt = _decimal(tilt)
        set_pixels(dataset, array[number], slopes[number], intercepts[number])
        for keyword, value in (tags or {}).items():
            setattr(dataset, keyword, value)
        found.append(dataset)
    return found


def set_pixels(dataset: Dataset, values: np.ndarray, slope: float = 1.0, intercept: float = -1024.0) -> None:
    """Store ``values`` (Y, X) in HU as uint16."""
    stored = np.round((values.astype(float) - intercept) / slope)
    if stored.min() < 0 or stored.max() > 65535:
        raise ValueError(f"these values do not fit uint16 with slope {slope} and intercept {intercept}")
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = _decimal(slope), _decimal(intercept), "HU"
    dataset.PixelData = stored.astype("<u2").tobytes()


def write_series(
    folder: Path,
    array: np.ndarray,
    *,
    syntax: str = "explicit",
    names: str = "IM{:04d}.dcm",
    **how: Any,
) -> list[Path]:
    """Write a classic series; ``how`` as :func:`series_datasets`, ``syntax`` as :func:`save`. Paths in slice order."""
    return save(series_datasets(array, **how), folder, syntax=syntax, names=names)


def save(
    datasets: Sequence[Dataset], folder: Path, *, syntax: str = "explicit", names: str = "IM{:04d}.dcm", first: int = 1
) -> list[Path]:
    """Write data sets; ``syntax`` is explicit, implicit, big_endian, deflated, rle or jpeg_ls."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate(datasets, start=first):
        path = folder / names.format(number)
        save_one(_copy(dataset), path, syntax)
        paths.append(path)
    return paths


def save_one(dataset: Dataset, path: Path, syntax: str = "explicit") -> Path:
    """Write one data set as a DICOM file."""
    uids = {
        "implicit": ImplicitVRLittleEndian,
        "big_endian": ExplicitVRBigEndian,
        "deflated": DeflatedExplicitVRLittleEndian,
    }
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
    dataset.file_meta.TransferSyntaxUID = uids.get(syntax, ExplicitVRLittleEndian)
    if syntax in ("rle", "jpeg_ls"):
        uid = pydicom.uid.RLELossless if syntax == "rle" else pydicom.uid.JPEGLSLossless
        dataset.compress(uid, generate_instance_uid=False)
    if syntax == "big_endian" and "PixelData" in dataset:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def localizer(like: Dataset, shape: Sequence[int] = (20, 18)) -> Dataset:
    """A scout view in the series of ``like``: another size, seen from the left."""
    dataset = _copy(like)
    dataset.SOPInstanceUID, dataset.InstanceNumber = generate_uid(), 0
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    set_pixels(dataset, np.arange(np.prod(shape)).reshape(tuple(shape)))
    return dataset


def secondary_capture(like: Dataset) -> Dataset:
    """A screen shot in the study of ``like``, in a series of its own."""
    dataset = _copy(like)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    dataset.SeriesInstanceUID, dataset.Modality = generate_uid(), "OT"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(dataset, keyword)
    return dataset


def dose_report(like: Dataset) -> Dataset:
    """A dose report as some scanners store it: an image of a CT series, with text burned in."""
    dataset = _copy(like)
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE", "DOSE_INFO"]
    return dataset


def enhanced_dataset(
    array: np.ndarray,
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = SPACING,
    origin: Sequence[float] = ORIGIN,
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = -1024.0,
    order: Sequence[int] | None = None,
    shared_rescale: bool = False,
    patient: Patient | None = None,
) -> Dataset:
    """An enhanced multi-frame CT of the same slices; ``order`` of the slices in the file may be any."""
    order = list(range(len(array))) if order is None else list(order)
    slices = series_datasets(
        array, orientation=orientation, spacing=spacing, origin=origin, slope=slope, intercept=intercept,
        patient=patient,
    )  # fmt: skip
    slices = [slices[number] for number in order]
    dataset = _copy(slices[0])
    for keyword in (
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
        "RescaleIntercept", "RescaleType", "GantryDetectorTilt", "KVP", "AcquisitionNumber",
    ):  # fmt: skip
        delattr(dataset, keyword)
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.InstanceNumber, dataset.NumberOfFrames = 1, len(slices)
    dataset.ContentDate, dataset.ContentTime = dataset.StudyDate, dataset.StudyTime
    dataset.PixelData = b"".join(item.PixelData for item in slices)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=slices[0].ImageOrientationPatient)]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=slices[0].PixelSpacing, SliceThickness=slices[0].SliceThickness)]
    if shared_rescale:
        shared.PixelValueTransformationSequence = [_rescale(slices[0])]
    frames = []
    for number, item in enumerate(slices, start=1):
        frame = Dataset()
        frame.FrameContentSequence = [
            _item(StackID="1", InStackPositionNumber=order[number - 1] + 1, FrameAcquisitionNumber=1)
        ]
        frame.PlanePositionSequence = [_item(ImagePositionPatient=item.ImagePositionPatient)]
        if not shared_rescale:
            frame.PixelValueTransformationSequence = [_rescale(item)]
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    return dataset


def _rescale(item: Dataset) -> Dataset:
    return _item(RescaleSlope=item.RescaleSlope, RescaleIntercept=item.RescaleIntercept, RescaleType="HU")


def _item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def _shared(patient: Patient, modality: str) -> Dataset:
    """Everything that all slices of a series share."""
    classes = {
        "CT": CTImageStorage,
        "MR": pydicom.uid.MRImageStorage,
        "PT": pydicom.uid.PositronEmissionTomographyImageStorage,
    }
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = classes[modality]
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = patient.study_date
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101112"
    dataset.AccessionNumber = patient.accession
    dataset.Modality, dataset.Manufacturer = modality, "Maker"
    dataset.ReferringPhysicianName = "Ueberweiser^Hans"
    dataset.SeriesDescription = f"Abdomen venous {patient.name}"
    dataset.PatientName, dataset.PatientID = patient.name, patient.number
    dataset.PatientBirthDate, dataset.PatientSex = patient.birth, "F"
    dataset.KVP, dataset.PatientPosition = "120", "HFS"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.StudyID, dataset.SeriesNumber, dataset.AcquisitionNumber = "1", 3, 1
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = generate_uid(), ""
    return dataset


def _copy(dataset: Dataset) -> Dataset:
    copied = Dataset()
    copied.update({element.tag: element for element in dataset})
    return copied


def _decimal(value: float) -> str:
    """At most 16 characters, as the standard asks of a decimal string."""
    return f"{float(value):.8g}"
