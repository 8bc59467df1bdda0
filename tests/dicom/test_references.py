"""Masks come onto the voxels on which they were drawn, whatever the order and orientation in their file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.sr.codedict import codes

from nnunet_3dct.dicom.references import read_masks, read_rtstruct, read_segmentation
from nnunet_3dct.dicom.series import find_series
from nnunet_3dct.dicom.volume import DicomVolume, read_series
from nnunet_3dct.errors import ImageError
from tests.dicom.makers import Patient, phantom, phantom_labels, save_one, write_series
from tests.dicom.test_volume import ORIENTATIONS

NAMES = ("organ", "lesion")


def volume_of(folder: Path) -> DicomVolume:
    (series,) = find_series(folder).series
    return read_series(series)


def write_seg(
    path: Path,
    sources: Sequence[Path],
    labels: np.ndarray,
    *,
    kind: str = "BINARY",
    names: Sequence[str] = NAMES,
) -> Path:
    """A DICOM-SEG of ``labels`` (Z, Y, X), slices in the order of ``sources``, by highdicom."""
    slices = [pydicom.dcmread(source) for source in sources]
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Pancreas,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, start=1)
    ]
    pixels = labels
    if kind == "FRACTIONAL":
        pixels = np.stack([labels == number for number in range(1, len(names) + 1)], axis=-1) * 0.8
    seg = highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=9,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Maker",
        manufacturer_model_name="Model",
        software_versions="1",
        device_serial_number="1",
    )
    seg.save_as(path)
    return path


def assert_masks(found: dict[str, np.ndarray], labels: np.ndarray) -> None:
    assert list(found) == list(NAMES)
    for number, name in enumerate(NAMES, start=1):
        assert np.array_equal(found[name], labels == number), name


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_segmentation_fits_in_every_orientation_and_order(tmp_path: Path, name: str) -> None:
    files = write_series(tmp_path / "ct", phantom(), orientation=ORIENTATIONS[name], descending=True)
    seg = write_seg(tmp_path / "seg.dcm", files[::-1], phantom_labels()[::-1])
    assert_masks(read_segmentation(seg, volume_of(tmp_path / "ct")), phantom_labels())


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_every_kind_of_segmentation_is_read(tmp_path: Path, kind: str) -> None:
    files = write_series(tmp_path / "ct", phantom())
    seg = write_seg(tmp_path / "seg.dcm", files, phantom_labels(), kind=kind)
    assert_masks(read_segmentation(seg, volume_of(tmp_path / "ct")), phantom_labels())


def dcmqi(tool: str) -> str:
    """Path of one of dcmqi's tools, an independent reader and writer."""
    found = shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{tool} of dcmqi is not installed")
    return found


@pytest.mark.parametrize("name", ["LP", "RA", "PS", "IL", "oblique"])
def test_masks_equal_those_that_dcmqi_reads(tmp_path: Path, name: str) -> None:
    tool = dcmqi("segimage2itkimage")
    files = write_series(tmp_path / "ct", phantom(), orientation=ORIENTATIONS[name])
    seg = write_seg(tmp_path / "seg.dcm", files, phantom_labels())
    volume = volume_of(tmp_path / "ct")
    (tmp_path / "out").mkdir()
    subprocess.run(
        [tool, "--inputDICOM", str(seg), "--outputDirectory", str(tmp_path / "out"), "-t", "nii"],
        check=True,
        capture_output=True,
    )
    ours = read_segmentation(seg, volume)
    for number, label in enumerate(NAMES, start=1):
        theirs = SimpleITK.ReadImage(str(tmp_path / "out" / f"{number}.nii.gz"))
        resampled = SimpleITK.Resample(theirs, volume.image, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
        assert np.array_equal(ours[label], SimpleITK.GetArrayFromImage(resampled) > 0)


def test_a_segment_without_a_frame_is_an_empty_mask(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", phantom())
    labels = np.where(phantom_labels() == 2, 0, phantom_labels())
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", files, labels), volume_of(tmp_path / "ct"))
    assert found["organ"].any() and found["lesion"].shape == labels.shape and not found["lesion"].any()


def test_segments_of_one_name_are_one_mask(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", phantom())
    seg = write_seg(tmp_path / "seg.dcm", files, phantom_labels(), names=("part", "part"))
    found = read_segmentation(seg, volume_of(tmp_path / "ct"))
    assert list(found) == ["part"] and np.array_equal(found["part"], phantom_labels() > 0)


def structures(path: Path, contours: dict[str, list[np.ndarray]], kind: str = "CLOSED_PLANAR") -> Path:
    """An RTSTRUCT of contours (n, 3) in mm."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.RTStructureSetStorage, pydicom.uid.generate_uid()
    dataset.Modality, dataset.PatientName, dataset.PatientID = "RTSTRUCT", Patient().name, Patient().number
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, found) in enumerate(contours.items(), start=1):
        region, drawn = pydicom.Dataset(), pydicom.Dataset()
        region.ROINumber, region.ROIName, drawn.ReferencedROINumber = number, name, number
        drawn.ContourSequence = []
        for points in found:
            contour = pydicom.Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{value:.6g}" for value in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(drawn)
    return save_one(dataset, path)


def box(volume: DicomVolume, z: int, x: tuple[float, float], y: tuple[float, float]) -> np.ndarray:
    """Corners of a rectangle in a slice, from voxel coordinates to mm."""
    corners = [(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)]
    return np.array([volume.image.TransformContinuousIndexToPhysicalPoint([float(v) for v in c]) for c in corners])


@pytest.mark.parametrize("name", ["LP", "RA", "AS", "IP", "oblique"])
@pytest.mark.parametrize("edge", [0.0, 0.4])
def test_contours_become_masks_with_holes(tmp_path: Path, name: str, edge: float) -> None:
    """A contour through the centres of the outermost pixels means what one around them means."""
    write_series(tmp_path / "ct", phantom(), orientation=ORIENTATIONS[name])
    volume = volume_of(tmp_path / "ct")
    expected = np.zeros(phantom().shape, bool)
    expected[1:4, 2:7, 1:9] = True
    expected[2, 4:5, 4:6] = False
    outer = [box(volume, z, (1 - edge, 8 + edge), (2 - edge, 6 + edge)) for z in (1, 2, 3)]
    hole = box(volume, 2, (3.6, 5.4), (3.6, 4.4))
    path = structures(tmp_path / "rt.dcm", {"organ": [*outer, hole]})
    assert np.array_equal(read_rtstruct(path, volume)["organ"], expected)


def test_contours_between_pixel_centres_take_none_of_them(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", phantom())
    volume = volume_of(tmp_path / "ct")
    path = structures(
        tmp_path / "rt.dcm", {"in": [box(volume, 1, (1, 3), (1, 3)), box(volume, 4, (4.1, 4.9), (4.1, 4.9))]}
    )
    found = read_rtstruct(path, volume)["in"]
    assert (found[1].sum(), found[4].sum()) == (9, 0)


def test_contours_drawn_on_thicker_slices_leave_no_gaps(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", phantom((9, 8, 8)))
    volume = volume_of(tmp_path / "ct")
    path = structures(tmp_path / "rt.dcm", {"in": [box(volume, z, (1, 3), (1, 3)) for z in (1.5, 4.5)]})
    assert read_rtstruct(path, volume)["in"].any(axis=(1, 2)).tolist() == [True] * 7 + [False] * 2


def test_contours_across_the_slices_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", phantom())
    volume = volume_of(tmp_path / "ct")
    across = np.array([[0, 10, 41], [0, 12, 41], [0, 12, 50], [0, 10, 50]])
    with pytest.raises(ImageError, match="'organ' in the planes of the slices, found 1 of 1"):
        read_rtstruct(structures(tmp_path / "rt.dcm", {"organ": [across]}), volume)


def test_contours_without_area_are_left_out_and_counted(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", phantom())
    volume = volume_of(tmp_path / "ct")
    structures(tmp_path / "ct" / "rt.dcm", {"mark": [box(volume, 1, (1, 3), (1, 3))[:1]]}, kind="POINT")
    scan = find_series(tmp_path / "ct")
    assert len(scan.series[0].files) == len(files)
    with pytest.raises(ImageError, match="expected masks in this RTSTRUCT, found none"):
        read_masks(scan.masks[0], volume, "case_0001")


def test_masks_equal_those_that_rt_utils_reads_of_its_own_file(tmp_path: Path) -> None:
    rt_utils = pytest.importorskip("rt_utils", reason="rt-utils, an independent reader and writer, is not installed")
    write_series(tmp_path / "ct", phantom((5, 12, 12)))
    volume = volume_of(tmp_path / "ct")
    labels = np.zeros((5, 12, 12), bool)
    labels[1:4, 2:9, 3:11] = True
    labels[2, 4:6, 5:8] = False
    labels[1, 2, 3:6] = False
    made = rt_utils.RTStructBuilder.create_new(dicom_series_path=str(tmp_path / "ct"))
    made.add_roi(mask=labels.transpose(1, 2, 0), name="organ", use_pin_hole=True)
    made.save(str(tmp_path / "rt.dcm"))
    theirs = rt_utils.RTStructBuilder.create_from(str(tmp_path / "ct"), str(tmp_path / "rt.dcm"))
    ours = read_rtstruct(tmp_path / "rt.dcm", volume)["organ"]
    independent = theirs.get_roi_mask_by_name("organ").transpose(2, 0, 1)
    assert np.array_equal(ours, independent) or (ours ^ independent).sum() <= 0.03 * labels.sum()
    assert (ours ^ labels).sum() <= 0.03 * labels.sum()


def test_segmentation_of_a_tilted_series_follows_its_slices(tmp_path: Path) -> None:
    """Each slice is moved by whole pixels, so that every voxel of the mask is known."""
    tilt = np.rad2deg(np.arctan(0.9 / 2.5))  # one row a slice
    files = write_series(tmp_path / "ct", phantom(), tilt=tilt)
    volume = volume_of(tmp_path / "ct")
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", files, phantom_labels()), volume)
    expected = np.zeros((6, 9 + 5, 11), np.uint8)
    for z, mask in enumerate(phantom_labels()):
        expected[z, z : z + 9] = mask
    assert_masks(found, expected)


def test_segmentation_of_uneven_slices_goes_to_the_nearest(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", phantom(), distances=[0, 2, 4, 6, 9, 12])
    volume = volume_of(tmp_path / "ct")
    labels = np.zeros((6, 9, 11), np.uint8)
    for z in range(1, 5):
        labels[z, z : z + 2, 2:8] = 1
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", files, labels, names=("organ",)), volume)["organ"]
    assert np.array_equal(found, labels[[0, 1, 2, 3, 4, 4, 5]] == 1)  # every 2 mm


def test_segmentation_of_another_grid_is_resampled_and_named(tmp_path: Path) -> None:
    fine = write_series(
        tmp_path / "fine", phantom((12, 18, 22)), spacing=(0.4, 0.45, 1.25), origin=(-12.2, 6.775, 39.375)
    )
    labels = phantom_labels().repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    write_series(tmp_path / "ct", phantom())
    volume = volume_of(tmp_path / "ct")
    write_seg(tmp_path / "fine" / "seg.dcm", fine, labels)
    reference = read_masks(find_series(tmp_path / "fine").masks[0], volume)
    assert_masks(reference.masks, phantom_labels())
    assert reference.repairs == ["2 masks do not lie on the voxels of the image: resampled (nearest neighbour)"]


def test_segmentation_turned_against_the_image_is_resampled(tmp_path: Path) -> None:
    """A sphere stays where it is in the patient."""
    z, y, x = np.indices((16, 16, 16))
    sphere = ((np.stack([z, y, x]) - 7.5) ** 2).sum(axis=0) < 25
    even = {"spacing": (1.0, 1.0, 1.0)}
    axes = np.array(ORIENTATIONS["oblique"]).reshape(2, 3)
    turned = np.stack([*axes, np.cross(*axes)], axis=1)
    files = write_series(tmp_path / "seg", phantom((16, 16, 16)), orientation=ORIENTATIONS["oblique"], **even,
                         origin=tuple(-turned @ np.full(3, 7.5)))  # fmt: skip
    seg = write_seg(tmp_path / "seg.dcm", files, sphere.astype(np.uint8), names=("ball",))
    write_series(tmp_path / "ct", phantom((16, 16, 16)), **even, origin=(-7.5, -7.5, -7.5))
    found = read_segmentation(seg, volume_of(tmp_path / "ct"))["ball"]
    assert (found ^ sphere).sum() < 0.2 * sphere.sum()
    assert np.argwhere(found).mean(axis=0) == pytest.approx([7.5, 7.5, 7.5], abs=0.1)


def test_masks_outside_of_the_image_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path / "other", phantom(), origin=(500, 0, 0))
    seg = write_seg(tmp_path / "seg.dcm", files, phantom_labels())
    write_series(tmp_path / "ct", phantom())
    with pytest.raises(ImageError, match="mask of 'organ' in the image, found all of it outside"):
        read_segmentation(seg, volume_of(tmp_path / "ct"))


def test_damaged_masks_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", phantom())
    volume = volume_of(tmp_path / "ct")
    seg = write_seg(tmp_path / "seg.dcm", files, phantom_labels())
    seg.write_bytes(seg.read_bytes()[:-200])
    with pytest.raises(ImageError, match="expected DICOM-SEG"):
        read_segmentation(seg, volume)
    with pytest.raises(ImageError, match="RTSTRUCT"):
        read_rtstruct(files[0], volume)


def test_masks_find_the_series_on_which_they_were_drawn(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a", phantom())
    write_series(tmp_path / "b", phantom())
    write_seg(tmp_path / "masks.dcm", files, phantom_labels())
    scan = find_series(tmp_path)
    by_folder = {series.place: [masks.kind for masks in scan.masks_of(series)] for series in scan.series}
    assert by_folder == {"a": ["segmentation"], "b": []}
