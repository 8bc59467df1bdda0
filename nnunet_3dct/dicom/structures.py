"""RT Structure Set: the outlines of all labels of a case, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, ImplicitVRLittleEndian, RTStructureSetStorage

from nnunet_3dct import __version__
from nnunet_3dct.dicom.algorithm import MAKER, RESEARCH_USE, Algorithm
from nnunet_3dct.dicom.findings import Segment
from nnunet_3dct.dicom.outlines import outlines
from nnunet_3dct.dicom.result_files import fitting, new_uid, save
from nnunet_3dct.dicom.source import Frame, Source, labels_on_frames
from nnunet_3dct.dicom.tags import quiet
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.label_codes import LabelCode

WHICH = 3  # last digits of the series number
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # retired, and what the standard still asks for here
_DECIMALS = 4  # of coordinates in mm


def make_structures(
    source: Source, labels: SimpleITK.Image, segments: Sequence[Segment], algorithm: Algorithm
) -> Dataset:
    """A structure set with a region for each segment that has voxels.

    Args:
        source, labels, segments, algorithm: as for :func:`~nnunet_3dct.dicom.segmentation.make_segmentation`.

    Raises:
        ImageError: no segment has voxels, or the labels lie somewhere else.
    """
    found = [segment for segment in segments if not segment.is_empty]
    if not found:
        raise ImageError("DICOM structure set: expected a segment with voxels, found none.")
    array = labels_on_frames(labels, source)
    with quiet():
        result = _general(source, algorithm)
        result.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
        regions = [
            _region(number, segment, source, segment.mask(array), algorithm)
            for number, segment in enumerate(found, start=1)
        ]
        result.StructureSetROISequence = [region for region, _, _ in regions]
        result.ROIContourSequence = [contours for _, contours, _ in regions]
        result.RTROIObservationsSequence = [observation for _, _, observation in regions]
        source.adopt(result)
    return result


def write_structures(
    path: Path, source: Source, labels: SimpleITK.Image, segments: Sequence[Segment], algorithm: Algorithm
) -> Dataset:
    """Write :func:`make_structures`; returns what was written.

    Raises:
        ImageError: as :func:`make_structures`.
        OutputError: the file cannot be written.
    """
    result = make_structures(source, labels, segments, algorithm)
    save(result, path)
    return result


def _general(source: Source, algorithm: Algorithm) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, UID(new_uid())
    # a list of coordinates may be longer than the 64 KiB that explicit value representations leave for it
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ImplicitVRLittleEndian, PYDICOM_IMPLEMENTATION_UID
    result = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    now = datetime.now()
    result.SOPClassUID, result.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    result.InstanceCreationDate = result.StructureSetDate = result.SeriesDate = now.strftime("%Y%m%d")
    result.InstanceCreationTime = result.StructureSetTime = result.SeriesTime = now.strftime("%H%M%S")
    result.StudyInstanceUID, result.SeriesInstanceUID = source.first.StudyInstanceUID, new_uid()
    result.SeriesNumber, result.InstanceNumber = source.series_number(WHICH), 1
    result.Modality, result.OperatorsName = "RTSTRUCT", ""
    result.SeriesDescription = fitting(f"{RESEARCH_USE}: structures by {MAKER}")
    result.Manufacturer, result.ManufacturerModelName = MAKER, fitting(algorithm.name)
    result.SoftwareVersions, result.DeviceSerialNumber = __version__, fitting(algorithm.weights)
    result.StructureSetLabel = fitting(RESEARCH_USE.upper(), 16)
    result.StructureSetName = fitting(f"{RESEARCH_USE}: {algorithm.name}")
    result.StructureSetDescription = fitting(f"{RESEARCH_USE}: {algorithm.version}", 1024)
    result.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    result.PositionReferenceIndicator = source.first.PositionReferenceIndicator
    result.ApprovalStatus = "UNAPPROVED"
    return result


def _frame_of_reference(source: Source) -> Dataset:
    series = _item(
        SeriesInstanceUID=source.first.SeriesInstanceUID,
        ContourImageSequence=[_reference(source, frame) for frame in source.frames],
    )
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=source.first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=source.first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _reference(source: Source, frame: Frame) -> Dataset:
    image = source.images[frame.image]
    item = _item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
    if frame.number is not None:
        item.ReferencedFrameNumber = frame.number
    return item


def _region(
    number: int, segment: Segment, source: Source, mask: np.ndarray, algorithm: Algorithm
) -> tuple[Dataset, Dataset, Dataset]:
    region = _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=source.first.FrameOfReferenceUID,
        ROIName=fitting(segment.name),
        ROIVolume=f"{segment.volume:.8g}",  # in cubic centimetres
        ROIGenerationAlgorithm="AUTOMATIC",
        ROIGenerationDescription=fitting(algorithm.version),
    )
    contours = _item(
        ReferencedROINumber=number,
        ROIDisplayColor=list(segment.colour),
        ContourSequence=[
            contour for plane in source.slice_order for contour in _contours(source, source.frames[plane], mask[plane])
        ],
    )
    observation = _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIIdentificationCodeSequence=[_code(segment.meaning.type)],
        # a target of radiotherapy is for a physician to name
        RTROIInterpretedType="" if segment.meaning.is_lesion else "ORGAN",
        ROIInterpreter="",
    )
    return region, contours, observation


def _contours(source: Source, frame: Frame, mask: np.ndarray) -> list[Dataset]:
    found = []
    for line in outlines(mask):
        steps = line[:, 1:] * frame.spacing[0] * source.axes[:, 0] + line[:, :1] * frame.spacing[1] * source.axes[:, 1]
        points = frame.position + steps
        found.append(
            _item(
                ContourImageSequence=[_reference(source, frame)],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{value:.{_DECIMALS}f}" for value in points.ravel()],
            )
        )
    return found


def _code(code: LabelCode) -> Dataset:
    return _item(CodeValue=code.code, CodingSchemeDesignator=code.scheme, CodeMeaning=fitting(code.meaning))


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
