"""DICOM Segmentation: voxel for voxel there and back in every orientation, read by others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from nnunet_3dct.dicom.algorithm import Algorithm
from nnunet_3dct.dicom.findings import segments_of
from nnunet_3dct.dicom.results import is_whole_result, write_dicom_seg
from nnunet_3dct.dicom.segmentation import write_segmentation
from nnunet_3dct.dicom.source import labels_on_frames, read_source
from nnunet_3dct.errors import ImageError, OutputError
from tests.dicom import makers, readers

NAMES = {"background": 0, "pancreas": 1, "lesion": 2}
ORIENTATIONS = {**makers.axis_orientations(), "oblique": makers.oblique()}
every_orientation = pytest.mark.parametrize("orientation", ORIENTATIONS)
ALGORITHM = Algorithm("Dataset001_3DCT, nnUNetTrainer_CLSHeadSumFT", "0123456789abcdef", {"folds": "0, 1"})


def label_image(orientation: str = "LP", labels: np.ndarray | None = None) -> SimpleITK.Image:
    array = makers.phantom_labels() if labels is None else labels
    return makers.expected_image(array, orientation=ORIENTATIONS[orientation])


def series(folder: Path, orientation: str = "LP", **how: object) -> list[Path]:
    return makers.write_series(folder, makers.phantom(), orientation=ORIENTATIONS[orientation], **how)  # type: ignore[arg-type]


def points(image: SimpleITK.Image, value: int) -> set[tuple[float, ...]]:
    """Places of all voxels of a value in the patient, to a hundredth of a mm."""
    indices = np.argwhere(SimpleITK.GetArrayFromImage(image) == value)[:, ::-1]
    return {
        tuple(round(p, 2) + 0.0 for p in image.TransformIndexToPhysicalPoint([int(i) for i in index]))
        for index in indices
    }


def close(first: set[tuple[float, ...]], second: set[tuple[float, ...]]) -> bool:
    a, b = np.array(sorted(first)), np.array(sorted(second))
    if a.shape != b.shape:
        return False
    nearest = np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1)
    return bool((nearest < 0.05).all())


@every_orientation
def test_every_orientation_comes_back_voxel_for_voxel(orientation: str, tmp_path: Path) -> None:
    files = series(tmp_path / "series", orientation)
    expected = label_image(orientation)
    SimpleITK.WriteImage(expected, str(tmp_path / "labels.nii.gz"))
    write_dicom_seg(tmp_path / "labels.nii.gz", files[::-1], tmp_path / "seg.dcm", NAMES)
    masks = readers.masks_by_dcmqi(tmp_path / "seg.dcm", tmp_path / "masks")
    for name, value in list(NAMES.items())[1:]:
        assert close(points(masks[name], value=SimpleITK.GetArrayViewFromImage(masks[name]).max()),
                     points(expected, value)), name  # fmt: skip


@every_orientation
def test_frames_hold_the_labels_of_their_slices(orientation: str, tmp_path: Path) -> None:
    """Checked by tags alone: each frame names the slice that it was drawn on, and holds its pixels."""
    files = series(tmp_path, orientation)
    write_dicom_seg(label_image(orientation), files, tmp_path / "seg.dcm", NAMES)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    slices = {pydicom.dcmread(path).SOPInstanceUID: number for number, path in enumerate(files)}
    found = np.zeros((2, *makers.phantom_labels().shape), bool)
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1, slices[source]] = pixels
    for value in (1, 2):
        assert (found[value - 1] == (makers.phantom_labels() == value)).all()


@pytest.mark.parametrize("turned", ["RAS", "LPS", "PIR", "SAL", "ILA"])
def test_labels_turned_by_other_software_fit_all_the_same(turned: str, tmp_path: Path) -> None:
    source = read_source(series(tmp_path, "AR"))
    image = label_image("AR")
    assert (labels_on_frames(SimpleITK.DICOMOrient(image, turned), source) == makers.phantom_labels()).all()


def test_mirrored_labels_are_noticed_by_this_test(tmp_path: Path) -> None:
    """The phantom has no symmetry: a mirrored label map does not pass for the right one."""
    source = read_source(series(tmp_path))
    for axis in range(3):
        flipped = label_image(labels=np.ascontiguousarray(np.flip(makers.phantom_labels(), axis)))
        assert not (labels_on_frames(flipped, source) == makers.phantom_labels()).all()


def test_codes_algorithm_and_research_use_are_stated(tmp_path: Path) -> None:
    source, image = read_source(series(tmp_path)), label_image()
    names = {"background": 0, "pancreas": 1, "lesion": 2, "cyst": 3, "ignore": 4}
    write_segmentation(tmp_path / "seg.dcm", source, image, segments_of(image, names), ALGORITHM)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    first, second = seg.SegmentSequence  # the cyst has no voxel
    assert [first.SegmentLabel, second.SegmentLabel] == ["pancreas", "lesion"]
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "15776009"
    assert second.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Abnormal Structure"
    assert second.AnatomicRegionSequence[0].CodeMeaning == "Pancreas"
    (algorithm,) = second.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == ALGORITHM.name and "0123456789abcdef" in algorithm.AlgorithmVersion
    assert seg.SeriesDescription.startswith("Research use") and seg.ContentDescription.startswith("Research use")
    assert seg.ContentLabel == "RESEARCH_USE"


@pytest.mark.parametrize("kind", ["plain", "implicit", "enhanced", "descending", "thick", "bare"])
def test_segmentation_conforms_to_the_standard(kind: str, tmp_path: Path) -> None:
    array, image = makers.phantom(), label_image()
    if kind == "enhanced":
        dataset = makers.enhanced_dataset(array, order=[3, 1, 0, 2, 5, 4])
        files = [makers.save_one(dataset, tmp_path / "enhanced.dcm")]
    else:
        datasets = makers.series_datasets(array, descending=kind == "descending")
        for dataset in datasets:
            if kind == "thick":
                dataset.SliceThickness = "5"  # slices that overlap
            if kind == "bare":
                for keyword in ("StudyID", "AccessionNumber", "PatientBirthDate", "ReferringPhysicianName",
                                "SliceThickness", "PatientSex", "PositionReferenceIndicator"):  # fmt: skip
                    delattr(dataset, keyword)
        files = makers.save(datasets, tmp_path / "series", syntax="implicit" if kind == "implicit" else "explicit")
    write_dicom_seg(image, files, tmp_path / "seg.dcm", NAMES)
    assert readers.conformance_problems(tmp_path / "seg.dcm") == []
    masks = readers.masks_by_dcmqi(tmp_path / "seg.dcm", tmp_path / "masks")
    top = SimpleITK.GetArrayViewFromImage(masks["lesion"]).max()
    assert close(points(masks["lesion"], int(top)), points(image, 2))


@pytest.mark.parametrize(
    ("name", "charset", "kept"),
    [
        ("Müller^Jürgen", "ISO_IR 100", "Müller^Jürgen"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("Люкceмбypг", "ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_of_patients_stay_readable(name: str, charset: object, kept: str, tmp_path: Path) -> None:
    datasets = makers.series_datasets(makers.phantom(), tags={"SpecificCharacterSet": charset, "PatientName": name})
    files = makers.save(datasets, tmp_path)
    write_dicom_seg(label_image(), files, tmp_path / "seg.dcm", {"background": 0, "größer": 1, "läsion": 2})
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert str(seg.PatientName) == kept
    assert seg.SegmentSequence[0].SegmentLabel == "größer"


def test_odd_tags_of_the_patient_are_neither_refused_nor_shown(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = {"PatientSex": "W", "PatientBirthDate": "29.03.1951", "PatientName": "A^B^C^D^E^F^G", "StudyTime": "25:61",
           "PatientID": "KH-4711-0815" * 7, "StudyInstanceUID": "1.02.3"}  # fmt: skip
    from nnunet_3dct.dicom.tags import quiet

    with quiet():
        files = makers.save(makers.series_datasets(makers.phantom(), tags=odd), tmp_path)
    write_dicom_seg(label_image(), files, tmp_path / "seg.dcm", NAMES)
    shown = capfd.readouterr()
    assert not shown.out and not shown.err and not list(recwarn)
    with quiet():
        assert str(pydicom.dcmread(tmp_path / "seg.dcm").PatientSex) == "W"


def test_slices_sent_twice_count_once(tmp_path: Path) -> None:
    datasets = makers.series_datasets(makers.phantom())
    files = makers.save([*datasets, *datasets[:2]], tmp_path)
    write_dicom_seg(label_image(), files, tmp_path / "seg.dcm", NAMES)
    assert np.count_nonzero(pydicom.dcmread(tmp_path / "seg.dcm").pixel_array) == np.count_nonzero(
        makers.phantom_labels()
    )


def test_labels_of_a_resampled_volume_lie_on_the_slices(tmp_path: Path) -> None:
    """A tilted gantry: slices are shifted against each other, the volume is not."""
    from nnunet_3dct.dicom.cases import dicom_cases

    block = np.zeros((8, 20, 20), np.uint8)
    block[1:7, 6:14, 5:12] = 1
    hu = np.where(block > 0, 300, -100).astype(np.int16)
    files = makers.write_series(tmp_path / "tilted", hu, spacing=(1.0, 1.0, 1.0), tilt=15)
    (case,) = dicom_cases(tmp_path / "tilted")
    volume = case.read()
    labels = SimpleITK.Cast(volume.image > 100, SimpleITK.sitkUInt8)
    found = labels_on_frames(labels, read_source(files))
    overlap = 2 * (found & block).sum() / (found.sum() + block.sum())
    assert overlap > 0.9


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    files, image = series(tmp_path / "series"), label_image()
    with pytest.raises(ImageError, match="expected a segment with voxels, found none"):
        write_dicom_seg(image * 0, files, tmp_path / "seg.dcm", NAMES)
    far = label_image()
    far.SetOrigin((900.0, 0.0, 0.0))
    with pytest.raises(ImageError, match="expected labels on the slices of the series"):
        write_dicom_seg(far, files, tmp_path / "seg.dcm", NAMES)
    other = series(tmp_path / "other")
    with pytest.raises(ImageError, match="expected files of one series, found those of 2"):
        write_dicom_seg(image, [*files, *other], tmp_path / "seg.dcm", NAMES)
    with pytest.raises(ImageError, match="expected one series of images, found 2"):
        write_dicom_seg(image, tmp_path, tmp_path / "seg.dcm", NAMES)
    with pytest.raises(OutputError):
        write_dicom_seg(image, files, tmp_path / "no_folder" / "seg.dcm", NAMES)
    assert not list(tmp_path.glob("*.dcm"))


def test_no_half_written_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = series(tmp_path / "series")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        write_dicom_seg(label_image(), files, tmp_path / "seg.dcm", NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_regions_may_overlap(tmp_path: Path) -> None:
    write_dicom_seg(label_image(), series(tmp_path), tmp_path / "seg.dcm",
                    {"background": 0, "whole organ": [1, 2], "lesion": 2})  # fmt: skip
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.SegmentsOverlap == "YES"
    labels = makers.phantom_labels()
    assert np.count_nonzero(seg.pixel_array) == np.count_nonzero(labels) + np.count_nonzero(labels == 2)


def test_damaged_result_is_told_from_a_whole_one(tmp_path: Path) -> None:
    write_dicom_seg(label_image(), series(tmp_path / "series"), tmp_path / "seg.dcm", NAMES)
    whole = (tmp_path / "seg.dcm").read_bytes()
    assert is_whole_result(tmp_path / "seg.dcm")
    for length in (0, 100, 900, len(whole) // 2, len(whole) - 30, len(whole) - 2):
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        assert not is_whole_result(tmp_path / "cut.dcm"), length
    assert not is_whole_result(tmp_path / "lost.dcm")
