"""DICOM Segmentation: all labels of a case in one object, on the slices of the series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from nnunet_3dct import __version__
from nnunet_3dct.dicom.algorithm import MAKER, RESEARCH_USE, Algorithm
from nnunet_3dct.dicom.findings import Segment
from nnunet_3dct.dicom.result_files import fitting, new_uid, save
from nnunet_3dct.dicom.source import Source, labels_on_frames
from nnunet_3dct.dicom.tags import quiet
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.label_codes import LabelCode

WHICH = 1  # last digits of the series number


def make_segmentation(
    source: Source, labels: SimpleITK.Image, segments: Sequence[Segment], algorithm: Algorithm
) -> Dataset:
    """A binary segmentation whose frames are those of the series.

    Only segments with voxels are in it, since readers stumble over a segment without a frame.

    Args:
        source: the series.
        labels: label map in any orientation, see :func:`~nnunet_3dct.dicom.source.labels_on_frames`.
        segments: of the case; at least one is not empty.
        algorithm: that made it.

    Raises:
        ImageError: no segment has voxels, the labels lie somewhere else, or highdicom refuses the series.
    """
    found = [segment for segment in segments if not segment.is_empty]
    if not found:
        raise ImageError("DICOM segmentation: expected a segment with voxels, found none.")
    pixels = _pixels(labels_on_frames(labels, source), found)
    names = ", ".join(segment.name for segment in found)
    with quiet():
        try:
            result = highdicom.seg.Segmentation(
                source_images=source.images,
                pixel_array=pixels,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_description(n, s, algorithm) for n, s in enumerate(found, start=1)],
                series_instance_uid=new_uid(),
                series_number=source.series_number(WHICH),
                sop_instance_uid=new_uid(),
                instance_number=1,
                manufacturer=MAKER,
                manufacturer_model_name=fitting(algorithm.name),
                software_versions=__version__,
                device_serial_number=fitting(algorithm.weights),
                content_label="RESEARCH_USE",
                content_description=fitting(f"{RESEARCH_USE}: {names}"),
                series_description=fitting(f"{RESEARCH_USE}: segmentation by {MAKER}"),
                pixel_measures=_measures(source),
            )
        except Exception as error:
            # its message may hold values of tags
            raise ImageError(
                f"DICOM segmentation: highdicom refuses the series ({type(error).__name__}). Is it whole and of one "
                "acquisition?"
            ) from None
        source.adopt(result)
    return result


def write_segmentation(
    path: Path, source: Source, labels: SimpleITK.Image, segments: Sequence[Segment], algorithm: Algorithm
) -> Dataset:
    """Write :func:`make_segmentation`; returns what was written.

    Raises:
        ImageError: as :func:`make_segmentation`.
        OutputError: the file cannot be written.
    """
    result = make_segmentation(source, labels, segments, algorithm)
    save(result, path)
    return result


def as_code(code: LabelCode) -> Code:
    """For highdicom."""
    return Code(code.code, code.scheme, fitting(code.meaning))


def _pixels(array: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """Numbers of the segments ``(frames, rows, columns)``; of regions that share voxels, masks behind each other."""
    values = [value for segment in segments for value in segment.values]
    if len(values) != len(set(values)):
        return np.stack([segment.mask(array) for segment in segments], axis=-1).astype(np.uint8)
    numbers = np.zeros(array.shape, np.uint16)
    for number, segment in enumerate(segments, start=1):
        numbers[segment.mask(array)] = number
    return numbers


def _description(number: int, segment: Segment, algorithm: Algorithm) -> highdicom.seg.SegmentDescription:
    meaning = segment.meaning
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=fitting(segment.name),
        segmented_property_category=as_code(meaning.category),
        segmented_property_type=as_code(meaning.type),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=fitting(algorithm.name),
            family=codes.cid7162.ArtificialIntelligence,
            version=fitting(algorithm.version),
            source=MAKER,
            parameters=dict(algorithm.parameters) or None,
        ),
        tracking_uid=segment.tracking_uid,
        tracking_id=fitting(segment.name),
        anatomic_regions=[as_code(meaning.region)] if meaning.region else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.colour),
    )
    if meaning.side is not None:
        (kind,) = description.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [highdicom.sr.CodedConcept.from_code(as_code(meaning.side))]
    return description


def _measures(source: Source) -> highdicom.PixelMeasuresSequence:
    """Sizes of a voxel, with the distance of the slices, which is not always their thickness."""
    columns, rows = source.frames[0].spacing
    shared = source.first.get("SharedFunctionalGroupsSequence")
    holder = shared[0].get("PixelMeasuresSequence", [Dataset()])[0] if shared else source.first
    thickness = float(holder.get("SliceThickness") or 0) or source.slice_spacing or 1.0
    return highdicom.PixelMeasuresSequence((rows, columns), thickness, source.slice_spacing)
