from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.data import get_testdata_file

from nnunet_3dct.dicom.series import find_series
from nnunet_3dct.dicom.slices import Slice
from nnunet_3dct.dicom.volume import DicomVolume, read_series
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.geometry import geometry_differences, image_geometry
from tests.dicom.makers import (
    axis_orientations,
    enhanced_dataset,
    expected_image,
    oblique,
    phantom,
    save,
    save_one,
    series_datasets,
    set_pixels,
    write_series,
)

ORIENTATIONS = {**axis_orientations(), "oblique": oblique()}


def read(folder: Path) -> DicomVolume:
    """The only series of a folder."""
    (series,) = find_series(folder).series
    return read_series(series)


def by_itk(folder: Path) -> SimpleITK.Image:
    """An independent reading of the only series of a folder."""
    (uid,) = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    return SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))


def assert_same(found: SimpleITK.Image, expected: SimpleITK.Image) -> None:
    assert not geometry_differences(image_geometry(found), image_geometry(expected))
    assert np.array_equal(SimpleITK.GetArrayFromImage(found), SimpleITK.GetArrayFromImage(expected))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_orientation_is_read_as_made_and_as_itk_reads_it(tmp_path: Path, name: str, descending: bool) -> None:
    write_series(tmp_path, phantom(), orientation=ORIENTATIONS[name], descending=descending)
    volume = read(tmp_path)
    assert_same(volume.image, expected_image(phantom(), orientation=ORIENTATIONS[name]))
    assert_same(volume.image, by_itk(tmp_path))
    assert (volume.repairs, volume.problems, volume.on_source_grid) == ([], [], True)
    assert volume.image.GetPixelID() == SimpleITK.sitkInt16


@pytest.mark.parametrize("syntax", ["implicit", "big_endian", "deflated", "rle", "jpeg_ls"])
def test_every_transfer_syntax_gives_the_same_voxels(tmp_path: Path, syntax: str) -> None:
    write_series(tmp_path, phantom(), syntax=syntax)
    assert_same(read(tmp_path).image, expected_image(phantom()))


def test_jpeg_lossless_gives_the_same_voxels(tmp_path: Path) -> None:
    tool = shutil.which("dcmcjpeg")
    if tool is None:
        pytest.skip("dcmcjpeg of dcmtk, which compresses by JPEG lossless, is not installed")
    for path in write_series(tmp_path / "plain", phantom()):
        (tmp_path / "packed").mkdir(exist_ok=True)
        subprocess.run([tool, "+e1", str(path), str(tmp_path / "packed" / path.name)], check=True)
    packed = pydicom.dcmread(tmp_path / "packed" / "IM0001.dcm", stop_before_pixels=True)
    assert packed.file_meta.TransferSyntaxUID == pydicom.uid.JPEGLosslessSV1
    assert_same(read(tmp_path / "packed").image, expected_image(phantom()))


def test_files_without_preamble_give_the_same_voxels(tmp_path: Path) -> None:
    for number, item in enumerate(series_datasets(phantom())):
        pydicom.dcmwrite(tmp_path / str(number), item, implicit_vr=True, little_endian=True)
    assert_same(read(tmp_path).image, expected_image(phantom()))


def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path) -> None:
    array = phantom() * 2
    write_series(tmp_path, array, slope=[1, 0.5, 0.25, 2, 1, 0.5], intercept=[-1024, -1000, -512, -1024, -2000, -1024])
    assert_same(read(tmp_path).image, expected_image(array))


def test_a_slope_that_makes_fractions_makes_a_float_image(tmp_path: Path) -> None:
    array = phantom() * 0.25
    write_series(tmp_path, array, slope=[1, *5 * [0.25]], intercept=-1024)
    image = read(tmp_path).image
    assert image.GetPixelID() == SimpleITK.sitkFloat32
    assert np.array_equal(SimpleITK.GetArrayFromImage(image)[1:], array[1:].astype(np.float32))


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_other_modalities_are_rescaled_too(tmp_path: Path, modality: str) -> None:
    array = np.abs(phantom()) * 2
    write_series(tmp_path, array, modality=modality, slope=[1, 0.5, 2, 2, 1, 0.5], intercept=0)
    assert_same(read(tmp_path).image, expected_image(array))


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg_ls"])
@pytest.mark.parametrize("name", ["LP", "RA", "IP", "oblique"])
def test_enhanced_frames_in_any_order_with_slopes_of_their_own(tmp_path: Path, name: str, syntax: str) -> None:
    how = {"orientation": ORIENTATIONS[name]}
    array = phantom() * 2
    enhanced = enhanced_dataset(array, order=[3, 0, 1, 5, 4, 2], slope=[1, 0.5, 2, 1, 2, 0.5], **how)
    save_one(enhanced, tmp_path / "a.dcm", syntax)
    volume = read(tmp_path)
    assert_same(volume.image, expected_image(array, **how))
    assert [item.instance for item in volume.slices] == [2, 3, 6, 1, 5, 4]


def test_enhanced_rescale_shared_by_all_frames(tmp_path: Path) -> None:
    save_one(enhanced_dataset(phantom(), shared_rescale=True), tmp_path / "a.dcm")
    assert_same(read(tmp_path).image, by_itk_file(tmp_path / "a.dcm"))


def by_itk_file(path: Path) -> SimpleITK.Image:
    return SimpleITK.ReadImage(str(path))


def field_of(volume: DicomVolume) -> np.ndarray:
    """Where in the patient the voxels of an image lie: (Z, Y, X, 3) in mm."""
    image = volume.image
    z, y, x = np.indices(image.GetSize()[::-1])
    index = np.stack([x, y, z], axis=-1) * np.array(image.GetSpacing())
    return index @ np.reshape(image.GetDirection(), (3, 3)).T + np.array(image.GetOrigin())


def linear(places: np.ndarray) -> np.ndarray:
    """A field that linear interpolation keeps exactly, another along each axis of the patient."""
    return 100 + places @ np.array([3.0, -7.0, 5.0])


def write_field(folder: Path, shape: tuple[int, int, int], **how: Any) -> None:
    """A series of :func:`linear`, each pixel where its slice lies."""
    slices = series_datasets(np.zeros(shape), slope=0.01, intercept=-300, **how)
    for item in slices:
        row, column = np.array(item.ImageOrientationPatient, float).reshape(2, 3)
        y, x = np.indices(shape[1:])
        spacing = np.array(item.PixelSpacing, float)
        places = x[..., None] * spacing[1] * row + y[..., None] * spacing[0] * column
        set_pixels(item, linear(places + np.array(item.ImagePositionPatient, float)), 0.01, -300)
    save(slices, folder)


@pytest.mark.parametrize("name", ["LP", "RA", "AS", "oblique"])
@pytest.mark.parametrize("degrees", [12.0, -20.0])
def test_a_tilted_gantry_is_straightened_and_nothing_is_cut_off(tmp_path: Path, name: str, degrees: float) -> None:
    how = {"orientation": ORIENTATIONS[name], "origin": (-3.0, 2.0, 4.0)}
    write_field(tmp_path, (6, 9, 8), tilt=degrees, **how)
    volume = read(tmp_path)
    found, expected = SimpleITK.GetArrayFromImage(volume.image), linear(field_of(volume))
    inside = np.pad(found > found.min() + 1e-3, ((0, 0), (1, 1), (0, 0)))
    # away from the border, where a pixel is mixed with what lies outside
    core = inside[:, 1:-1] & inside[:, :-2] & inside[:, 2:]
    assert core.sum() > 0.6 * 6 * 9 * 8
    assert np.abs(found - expected)[core].max() < 0.02
    assert volume.repairs == [f"gantry tilted by {abs(degrees):g} degrees: slices moved in their plane"]
    assert not volume.on_source_grid
    corners = [slices_corner(item) for item in volume.slices]
    for corner in corners:
        index = volume.image.TransformPhysicalPointToContinuousIndex(corner.tolist())
        assert all(-0.01 <= value <= size - 0.99 for value, size in zip(index, volume.image.GetSize(), strict=True))


def slices_corner(item: Slice) -> np.ndarray:
    """Centre of the last pixel of a slice."""
    width, height = item.size
    return (
        np.array(item.position)
        + np.array(item.row) * (width - 1) * item.spacing[0]
        + np.array(item.column) * (height - 1) * item.spacing[1]
    )


def test_uneven_slices_are_interpolated_between_their_true_positions(tmp_path: Path) -> None:
    write_field(tmp_path, (7, 5, 6), distances=[0, 2, 4, 6, 9, 12, 15])
    volume = read(tmp_path)
    assert volume.image.GetSize()[2] == 9 and volume.image.GetSpacing()[2] == pytest.approx(15 / 8)
    assert np.abs(SimpleITK.GetArrayFromImage(volume.image) - linear(field_of(volume))).max() < 0.02
    assert volume.repairs == ["uneven slices, 2 to 3 mm apart: 7 resampled to 9 every 1.875 mm"]


def test_slices_of_two_spacings_are_no_missing_slices(tmp_path: Path) -> None:
    write_field(tmp_path, (9, 4, 4), distances=[0, 2, 4, 6, 8, 10, 15, 20, 25])
    volume = read(tmp_path)
    assert np.abs(SimpleITK.GetArrayFromImage(volume.image) - linear(field_of(volume))).max() < 0.02
    assert "2 to 5 mm apart" in volume.repairs[0]


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path: Path) -> None:
    write_series(tmp_path, phantom((9, 5, 6)), distances=np.round(np.arange(9) * 0.625, 1))
    volume = read(tmp_path)
    assert (volume.repairs, volume.on_source_grid) == ([], True)
    assert volume.image.GetSpacing()[2] == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ([3], r"1 between instances 3 and 5 \(5 mm apart, others 2.5 mm\)"),
        ([2, 3], r"2 between instances 2 and 5 \(7.5 mm apart, others 2.5 mm\)"),
        ([2, 6], r"1 between instances 2 and 4 .*, 1 between instances 6 and 8"),
        ([1], "1 between instances 1 and 3"),
        ([3, 5], r"1 between instances 3 and 5 .*, 1 between instances 5 and 7"),
    ],
)
def test_missing_slices_are_named_by_their_neighbours(tmp_path: Path, drop: list[int], message: str) -> None:
    slices = series_datasets(phantom((10, 5, 6)))
    save([item for number, item in enumerate(slices) if number not in drop], tmp_path)
    with pytest.raises(ImageError, match=message):
        read(tmp_path)


def test_double_slices_are_dropped_and_counted(tmp_path: Path) -> None:
    slices = series_datasets(phantom())
    again = series_datasets(phantom())[2:4]
    for number, item in enumerate(again):
        item.SeriesInstanceUID, item.InstanceNumber = slices[0].SeriesInstanceUID, 50 + number
    save([*slices, *again], tmp_path)
    volume = read(tmp_path)
    assert_same(volume.image, expected_image(phantom()))
    assert volume.repairs == ["2 double slices left out (instances 50, 51)"]


def test_different_slices_at_one_position_are_refused_by_instance(tmp_path: Path) -> None:
    slices = series_datasets(phantom())
    other = series_datasets(phantom() + 1)[2]
    other.SeriesInstanceUID, other.InstanceNumber = slices[0].SeriesInstanceUID, 50
    save([*slices, other], tmp_path)
    with pytest.raises(ImageError, match=r"different ones at 1 of 6 positions \(instances 3 and 50\)"):
        read(tmp_path)


def test_two_phases_in_one_series_are_told(tmp_path: Path) -> None:
    first, second = series_datasets(phantom()), series_datasets(phantom() + 7)
    for number, item in enumerate(second):
        item.SeriesInstanceUID, item.InstanceNumber = first[0].SeriesInstanceUID, 7 + number
    save([*first, *second], tmp_path)
    with pytest.raises(ImageError, match=r"2 different ones at each of 6 positions .* as in a series of 2 phases"):
        read(tmp_path)


def one_changed(folder: Path, number: int, **tags: Any) -> None:
    slices = series_datasets(phantom())
    for keyword, value in tags.items():
        setattr(slices[number], keyword, value)
    save(slices, folder)


def test_two_sizes_are_refused_by_instance(tmp_path: Path) -> None:
    slices = series_datasets(phantom())
    set_pixels(slices[4], np.zeros((9, 12)))
    save(slices, tmp_path)
    with pytest.raises(ImageError, match=r"one size, found 11 x 9 \(instances 1-4, 6\), 12 x 9 \(instances 5\)"):
        read(tmp_path)


def test_two_patients_are_refused_by_instance_and_not_named(tmp_path: Path) -> None:
    one_changed(tmp_path, 1, PatientID="KH-0001", PatientName="Anders^Person")
    with pytest.raises(ImageError, match=r"one patient, found patient \w+ \(instances 1, 3-6\)") as error:
        read(tmp_path)
    assert "KH-" not in str(error.value) and "Anders" not in str(error.value)


def test_two_pixel_spacings_are_refused_by_instance(tmp_path: Path) -> None:
    one_changed(tmp_path, 1, PixelSpacing=["0.9", "0.7"])
    with pytest.raises(ImageError, match=r"one pixel spacing, found 0.8 x 0.9 mm \(instances 1, 3-6\)"):
        read(tmp_path)


def test_spacings_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    one_changed(tmp_path, 1, PixelSpacing=["0.9004999", "0.8"])
    assert read(tmp_path).repairs == []


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "PixelSpacing"])
def test_slices_without_a_place_are_refused_by_instance(tmp_path: Path, keyword: str) -> None:
    one_changed(tmp_path, 4, **{keyword: None})
    with pytest.raises(ImageError, match=r"found 1 of 6 without \w+( \w+)? \(instances 5\)"):
        read(tmp_path)


def test_damaged_pixels_are_named_by_instance(tmp_path: Path) -> None:
    files = write_series(tmp_path, phantom(), syntax="jpeg_ls")
    content = bytearray(files[2].read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start : start + 60] = bytes(60)
    files[2].write_bytes(content)
    with pytest.raises(ImageError, match="pixels of instance 3 cannot be decoded"):
        read(tmp_path)


def test_files_that_cannot_be_read_beside_a_series_are_said(tmp_path: Path) -> None:
    files = write_series(tmp_path, phantom())
    files[-1].write_bytes(files[-1].read_bytes()[:-50])
    assert read(tmp_path).problems == [
        "1 files beside its slices cannot be read (IM0006.dcm): slices may be missing at its ends"
    ]


def test_raw_values_of_a_ct_are_said(tmp_path: Path) -> None:
    slices = series_datasets(phantom())
    for item in slices:
        del item.RescaleSlope, item.RescaleIntercept
    save(slices, tmp_path)
    assert "may be no HU" in read(tmp_path).problems[0]


def test_a_single_slice_takes_its_thickness(tmp_path: Path) -> None:
    write_series(tmp_path, phantom((4, 5, 6))[:1])
    volume = read(tmp_path)
    assert (volume.image.GetSize(), volume.image.GetSpacing()) == ((6, 5, 1), (0.8, 0.9, 2.5))
    assert "single slice" in volume.problems[0]


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm", "693_J2KI.dcm"]
)
def test_real_files_of_pydicom_are_read_as_itk_reads_them(tmp_path: Path, name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    shutil.copy(path, tmp_path)
    found, expected = read(tmp_path).image, by_itk_file(path)
    assert np.array_equal(SimpleITK.GetArrayFromImage(found), SimpleITK.GetArrayFromImage(expected))
    assert found.GetOrigin() == pytest.approx(expected.GetOrigin())
    assert found.GetDirection() == pytest.approx(expected.GetDirection(), abs=1e-5)


def test_real_series_of_pydicom_are_read_or_refused_with_a_reason() -> None:
    """Its slices were thinned out when they were made small, so most of these series have gaps."""
    folder = Path(str(get_testdata_file("DICOMDIR"))).parent
    outcomes = []
    for series in find_series(folder).series:
        try:
            outcomes.append(read_series(series).image.GetSize())
        except ImageError as error:
            outcomes.append(str(error))
            assert "instances" in str(error)
    assert len(outcomes) >= 7
