"""Structured Report after TID 1500 (Measurement Report): volumes of the labels, class, probabilities and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from nnunet_3dct import __version__
from nnunet_3dct.dicom.algorithm import MAKER, RESEARCH_USE, STATEMENT, Algorithm
from nnunet_3dct.dicom.findings import Segment
from nnunet_3dct.dicom.result_files import device_uid, fitting, new_uid, save
from nnunet_3dct.dicom.segmentation import as_code
from nnunet_3dct.dicom.source import Source
from nnunet_3dct.dicom.tags import quiet
from nnunet_3dct.errors import ImageError

WHICH = 2  # last digits of the series number
SCHEME = "99NNUNET3DCT"  # of what no terminology has codes for: the classes of a model
MILLILITRE = Code("mL", "UCUM", "milliliter")
PROBABILITY = Code("1", "UCUM", "no units")
PREDICTED = Code("predicted_class", SCHEME, "Predicted class")
COMMENT = Code("121106", "DCM", "Comment")
NOT_FOUND = "Not found: no voxel was given this label."

_Group = sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations


@dataclass(frozen=True)
class Numbers:
    """What was measured of a label beside its volume; None for what was not, or has no such unit.

    Attributes:
        mean, sd: of its voxels, in HU.
        longest_diameter: in a slice, in mm.
    """

    mean: float | None = None
    sd: float | None = None
    longest_diameter: float | None = None


@dataclass(frozen=True)
class ClassResult:
    """The class of a case.

    Attributes:
        names: of the classes.
        probabilities: of each class, sum 1.
        predicted: number of the class, from 0.
        remarks: what stands against relying on it, such as a case unlike the training cases.
    """

    names: Sequence[str]
    probabilities: Sequence[float]
    predicted: int
    remarks: Sequence[str] = ()


def make_report(
    source: Source,
    segments: Sequence[Segment],
    result: ClassResult | None,
    algorithm: Algorithm,
    segmentation: Dataset | None = None,
    numbers: Mapping[str, Numbers] | None = None,
) -> Dataset:
    """A report of one case.

    Each label has a group of measurements with its volume: one that refers to the segment (TID 1411), or without a
    segmentation, and for a label without voxels, a plain one (TID 1501). The class has a group of its own.

    Args:
        source: the series.
        segments: of the case, empty ones too; their volume is then 0.
        result: the class; None for a model that names none.
        algorithm: that found all this.
        segmentation: that the segments are in, see :func:`~nnunet_3dct.dicom.segmentation.make_segmentation`.
        numbers: label -> what else was measured of it.

    Raises:
        ImageError: highdicom refuses the series.
    """
    with quiet():
        groups: list[_Group] = [_class_group(result, algorithm)] if result is not None else []
        for segment in segments:
            measured = _measured(segment, (numbers or {}).get(segment.name, Numbers()))
            groups.append(_segment_group(segment, source, algorithm, segmentation, measured))
        content = _content(source, groups, algorithm)
        try:
            report = _document(source, content, algorithm, segmentation)
        except Exception as error:
            # its message may hold values of tags
            raise ImageError(f"DICOM report: highdicom refuses the series ({type(error).__name__}).") from None
        source.adopt(report)
    return report


def write_report(
    path: Path,
    source: Source,
    segments: Sequence[Segment],
    result: ClassResult | None,
    algorithm: Algorithm,
    segmentation: Dataset | None = None,
    numbers: Mapping[str, Numbers] | None = None,
) -> Dataset:
    """Write :func:`make_report`; returns what was written.

    Raises:
        ImageError: as :func:`make_report`.
        OutputError: the file cannot be written.
    """
    report = make_report(source, segments, result, algorithm, segmentation, numbers)
    save(report, path)
    return report


def _document(source: Source, content: Dataset, algorithm: Algorithm, segmentation: Dataset | None) -> Dataset:
    return sr.ComprehensiveSR(
        evidence=[*source.images, *([segmentation] if segmentation is not None else [])],
        content=content,
        series_instance_uid=new_uid(),
        series_number=source.series_number(WHICH),
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=fitting(algorithm.name),
        software_versions=__version__,
        device_serial_number=fitting(algorithm.weights),
        series_description=fitting(f"{RESEARCH_USE}: measurements by {MAKER}"),
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name=f"Classes of {MAKER}", version=__version__)],
    )


def _content(source: Source, groups: Sequence[_Group], algorithm: Algorithm) -> Dataset:
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=device_uid(algorithm.version),
            name=MAKER,
            manufacturer_name=MAKER,
            model_name=algorithm.name,
            serial_number=algorithm.weights,
        ),
    )
    procedures = {"CT": codes.LN.CTUnspecifiedBodyRegion, "MR": codes.cid100.MRIUnspecifiedBodyRegion}
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=procedures.get(source.modality, codes.cid100.ImagingProcedure),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    root = report[0]
    place = [item.name == codes.DCM.ImagingMeasurements for item in root.ContentSequence].index(True)
    root.ContentSequence.insert(place, _text(COMMENT, STATEMENT))
    return root


def _segment_group(
    segment: Segment,
    source: Source,
    algorithm: Algorithm,
    segmentation: Dataset | None,
    measured: Sequence[sr.Measurement],
) -> _Group:
    meaning = segment.meaning
    about: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(uid=segment.tracking_uid, identifier=fitting(segment.name)),
        "algorithm_id": _identification(algorithm),
        "finding_type": as_code(meaning.type),
        "finding_category": as_code(meaning.category),
        "finding_sites": _sites(segment),
        "measurements": measured,
    }
    number = _segment_number(segment, segmentation)
    if segmentation is None or number is None:
        group = sr.MeasurementsAndQualitativeEvaluations(**about)
        if segment.is_empty:
            group[0].ContentSequence.append(_text(COMMENT, NOT_FOUND))
        return group
    reference = sr.ReferencedSegment(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        number,
        source_series=sr.SourceSeriesForSegmentation(source.first.SeriesInstanceUID),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=reference, **about)


def _measured(segment: Segment, numbers: Numbers) -> list[sr.Measurement]:
    found = [sr.Measurement(codes.SCT.Volume, _number(segment.volume), MILLILITRE)]
    if numbers.longest_diameter is not None:
        length = _number(numbers.longest_diameter)
        found.append(sr.Measurement(codes.SCT.LongAxis, length, codes.UCUM.Millimeter))
    for value, kind in ((numbers.mean, codes.SCT.Mean), (numbers.sd, codes.SCT.StandardDeviation)):
        if value is not None:
            attenuation, unit = codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit
            found.append(sr.Measurement(attenuation, _number(value), unit, derivation=kind))
    return found


def _segment_number(segment: Segment, segmentation: Dataset | None) -> int | None:
    if segmentation is None:
        return None
    items = segmentation.SegmentSequence
    return next((int(item.SegmentNumber) for item in items if item.TrackingUID == segment.tracking_uid), None)


def _sites(segment: Segment) -> list[sr.FindingSite] | None:
    meaning = segment.meaning
    if meaning.site is None:
        return None
    side = as_code(meaning.side) if meaning.side else None
    return [sr.FindingSite(as_code(meaning.site), laterality=side)]


def _class_group(result: ClassResult, algorithm: Algorithm) -> _Group:
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=new_uid(), identifier="Class of the case"),
        algorithm_id=_identification(algorithm, parameters=True),
        finding_type=Code("class", SCHEME, "Class of the case"),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                Code("predicted_class", SCHEME, "Predicted class"), _class(result, result.predicted)
            )
        ],
        measurements=[
            sr.Measurement(
                Code(f"prob_class_{number}", SCHEME, fitting(f"Probability of {result.names[number]}")),
                _number(probability),
                PROBABILITY,
            )
            for number, probability in enumerate(result.probabilities)
        ],
    )
    for remark in result.remarks:
        group[0].ContentSequence.append(_text(COMMENT, remark))
    return group


def _class(result: ClassResult, number: int) -> Code:
    return Code(f"class_{number}", SCHEME, fitting(result.names[number]))


def _identification(algorithm: Algorithm, *, parameters: bool = False) -> sr.AlgorithmIdentification:
    given = [f"{name}: {value}" for name, value in algorithm.parameters.items()] if parameters else []
    return sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        parameters=given or None,
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=MAKER,
    )


def _text(name: Code, text: str) -> sr.TextContentItem:
    return sr.TextContentItem(name=name, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS)


def _number(value: float) -> float:
    """Few enough digits for a decimal string of 16 characters."""
    return float(f"{value:.6g}")
