"""TID 1500 report: what dcmqi and DCMTK read in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from nnunet_3dct.dicom.algorithm import Algorithm
from nnunet_3dct.dicom.findings import segments_of
from nnunet_3dct.dicom.report import ClassResult, Numbers, write_report
from nnunet_3dct.dicom.segmentation import write_segmentation
from nnunet_3dct.dicom.source import read_source
from tests.dicom import makers, readers

NAMES = {"background": 0, "pancreas": 1, "pancreatic lesion": 2, "left kidney": 3}
ALGORITHM = Algorithm("Dataset001_3DCT, nnUNetTrainer_CLSHeadSumFT", "0123456789abcdef", {"folds": "0, 1"})
RESULT = ClassResult(["serous", "mucinous", "größer"], [0.1234567, 0.7, 0.1765433], 1, ["the image is unlike others"])
NUMBERS = {"pancreas": Numbers(96.25, 18.5, 41.75)}
VOXEL = float(np.prod(makers.SPACING)) / 1000


@pytest.fixture(scope="module", params=[True, False], ids=["with segmentation", "alone"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    source = read_source(makers.write_series(folder / "series", makers.phantom()))
    image = makers.expected_image(makers.phantom_labels())
    segments = segments_of(image, NAMES)
    seg = write_segmentation(folder / "seg.dcm", source, image, segments, ALGORITHM) if request.param else None
    write_report(folder / "sr.dcm", source, segments, RESULT, ALGORITHM, seg, NUMBERS)
    return folder / "sr.dcm"


def test_report_conforms_to_the_standard(report: Path) -> None:
    assert readers.conformance_problems(report) == []


def test_dcmqi_reads_volumes_of_the_segments(report: Path) -> None:
    if not (report.parent / "seg.dcm").is_file():
        pytest.skip("dcmqi reads measurements of segments alone")
    content = readers.report_by_dcmqi(report, report.parent)
    groups = {group["TrackingIdentifier"]: group for group in content["Measurements"]}
    seg = pydicom.dcmread(report.parent / "seg.dcm")
    labels = makers.phantom_labels()
    for number, name in ((1, "pancreas"), (2, "pancreatic lesion")):
        volume, *others = groups[name]["measurementItems"]
        assert [item["quantity"]["CodeMeaning"] for item in others] == (
            ["Long axis", "Attenuation Coefficient", "Attenuation Coefficient"] if name == "pancreas" else []
        )
        assert volume["quantity"]["CodeMeaning"] == "Volume" and volume["units"]["CodeValue"] == "mL"
        assert float(volume["value"]) == pytest.approx(np.count_nonzero(labels == number) * VOXEL, rel=1e-5)
        assert groups[name]["ReferencedSegment"] == number
        assert groups[name]["segmentationSOPInstanceUID"] == seg.SOPInstanceUID
        algorithm = groups[name]["measurementAlgorithmIdentification"]
        assert algorithm["AlgorithmName"] == ALGORITHM.name and "0123456789abcdef" in algorithm["AlgorithmVersion"]
    assert groups["pancreatic lesion"]["Finding"]["CodeMeaning"] == "Lesion"
    assert groups["pancreatic lesion"]["FindingSite"]["CodeMeaning"] == "Pancreas"


def test_dcmtk_reads_all_of_it(report: Path) -> None:
    text = readers.dump(report)
    for needed in (
        '"Research use only. Computed by an algorithm',
        '"Predicted class")=(class_1,99NNUNET3DCT,"mucinous")',
        '"Probability of mucinous")="0.7"',
        '"Probability of größer")="0.176543"',
        '"the image is unlike others"',
        f'"Algorithm Name")="{ALGORITHM.name}"',
        'weights 0123456789abcdef"',
        '"Algorithm Parameters")="folds: 0, 1"',
        '"Long axis")="41.75" (mm,UCUM,"mm")',
        '"Attenuation Coefficient")="96.25" ([hnsf\'U],UCUM,"Hounsfield unit")',
        "UNVERIFIED",
        "PRELIMINARY",
    ):
        assert needed in text, needed
    kidney = text[text.index('"left kidney"') :]
    assert '"Volume")="0.0"' in kidney and "Not found" in kidney and '"Laterality")=(7771000,SCT,"Left")' in kidney


def test_a_model_without_voxels_is_reported_with_volumes_of_zero(tmp_path: Path) -> None:
    source = read_source(makers.write_series(tmp_path / "series", makers.phantom()))
    image = makers.expected_image(makers.phantom_labels() * 0)
    write_report(tmp_path / "sr.dcm", source, segments_of(image, NAMES), None, ALGORITHM)
    assert readers.dump(tmp_path / "sr.dcm").count('"Volume")="0.0"') == 3
    assert readers.conformance_problems(tmp_path / "sr.dcm") == []


def test_probability_of_almost_nothing_fits(tmp_path: Path) -> None:
    source = read_source(makers.write_series(tmp_path / "series", makers.phantom()))
    image = makers.expected_image(makers.phantom_labels())
    result = ClassResult(["a" * 90, "b"], [1.23456789e-12, 1 - 1.23456789e-12], 1)
    write_report(tmp_path / "sr.dcm", source, segments_of(image, NAMES), result, ALGORITHM)
    assert readers.conformance_problems(tmp_path / "sr.dcm") == []
    assert "1.23457e-12" in readers.dump(tmp_path / "sr.dcm")
