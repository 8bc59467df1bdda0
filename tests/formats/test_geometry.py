from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.geometry import (
    Geometry,
    check_planned_size,
    check_spacing,
    geometry_differences,
    image_geometry,
    read_geometry,
)
from nnunet_3dct.formats.image_files import check_case_files, check_label_fits_image
from tests.utils import ct_array, edit_nifti_header, label_array, tilt, write_volume

TURN = (np.cos(0.3), -np.sin(0.3), 0, np.sin(0.3), np.cos(0.3), 0, 0, 0, 1)
GRID = Geometry((10, 8, 6), (0.8, 0.8, 2.5), (-10.0, 20.0, 30.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1), 1, False)


@pytest.mark.parametrize(
    "grid",
    [
        {"spacing": (0.7, 0.8, 2.5), "origin": (-30, 20, 100)},
        {"spacing": (0.7, 0.8, 2.5), "origin": (-30, 20, 100), "direction": TURN},
        {"spacing": (0.7, 0.8, 2.5), "direction": (0, 0, 1, 1, 0, 0, 0, 1, 0)},
        {"spacing": (0.7, 0.8, 2.5), "direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)},
    ],
)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_both_ways_of_reading_a_header_agree(tmp_path: Path, grid: dict, dtype: type) -> None:
    path = write_volume(tmp_path / "a.nii.gz", ct_array().astype(dtype), **grid)
    by_itk, by_nibabel = read_geometry(path), read_geometry(path, reader="NibabelIO")
    assert by_nibabel.size == by_itk.size and by_nibabel.floating == by_itk.floating
    for name in ("spacing", "origin", "direction"):
        assert getattr(by_nibabel, name) == pytest.approx(getattr(by_itk, name), abs=1e-4)


def test_grid_in_memory_and_in_a_file_agree(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.mha", ct_array(), (0.7, 0.8, 2.5), (1, 2, 3), TURN)
    assert image_geometry(SimpleITK.ReadImage(str(path))) == read_geometry(path)


def test_fourth_axis_counts_as_channels_and_labels_of_three_axes_fit(tmp_path: Path) -> None:
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(ct_array(seed=n)) for n in range(3)])
    SimpleITK.WriteImage(image, str(tmp_path / "a.nii.gz"))
    grid = read_geometry(tmp_path / "a.nii.gz")
    assert (grid.size, grid.channels, len(grid.direction)) == ((10, 8, 6), 3, 9)
    check_label_fits_image(write_volume(tmp_path / "l.nii.gz", label_array()), tmp_path / "a.nii.gz", "c")


def test_fourth_axis_of_length_one_is_no_difference(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(ct_array().T[..., None], np.diag([-1, -1, 1, 1])), tmp_path / "a.nii.gz")
    check_case_files([tmp_path / "a.nii.gz"], 1, "c")
    check_label_fits_image(write_volume(tmp_path / "l.nii.gz", label_array()), tmp_path / "a.nii.gz", "c")


@pytest.mark.parametrize("shape", [(10, 8), (10, 8, 6, 1)])
def test_nibabel_readers_take_three_axes_only(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ImageError, match=r"three axes, since NibabelIO reads no other, found shape \(10, 8"):
        check_case_files([tmp_path / "a.nii.gz"], 1, "c", reader="NibabelIO")


def test_vectors_are_refused_where_nnunet_would_take_slices_for_channels(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((3, 8, 10, 3), np.int16), isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "a.nii.gz"))
    with pytest.raises(ImageError, match="expected one value a voxel, found 3"):
        check_case_files([tmp_path / "a.nii.gz"], 3, "c", reader="SimpleITKIO")


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"origin": (-10.05, 20.0, 30.0)}, False),
        ({"origin": (-10.0, 20.0, 30.079)}, False),
        ({"origin": (-10.0, 20.0, 30.081)}, True),
        ({"spacing": (0.8, 0.8, 2.502)}, False),
        ({"spacing": (0.8, 0.8, 2.51)}, True),
        ({"direction": (1, 0.0009, 0, 0, 1, 0, 0, 0, 1)}, False),
        ({"direction": (1, 0.002, 0, 0, 1, 0, 0, 0, 1)}, True),
        ({"size": (10, 8, 7)}, True),
        ({"channels": 3, "floating": True}, False),
    ],
)
def test_tolerances_of_the_one_comparison(change: dict, differs: bool) -> None:
    other = Geometry(**{**GRID.__dict__, **change})
    assert bool(geometry_differences(other, GRID)) is differs


class TestShearedAxes:
    def test_are_called_that_with_their_angle_and_what_helps(self, tmp_path: Path) -> None:
        path = tilt(write_volume(tmp_path / "c_0000.nii.gz", ct_array(), (2, 2, 3)))
        for reader in (None, "SimpleITKIO"):
            with pytest.raises(ImageError, match=r"sheared: they meet at 90, 90, (78|102) degrees") as error:
                check_case_files([path], 1, "c", reader=reader)
            assert all(word in str(error.value) for word in ("overwrite_image_reader_writer", "NibabelIO", "Resample"))

    @pytest.mark.parametrize("reader", ["NibabelIO", "NibabelIOWithReorient"])
    def test_pass_where_nibabel_reads_the_dataset(self, tmp_path: Path, reader: str) -> None:
        image = tilt(write_volume(tmp_path / "c_0000.nii.gz", ct_array(), (2, 2, 3)))
        label = tilt(write_volume(tmp_path / "c.nii.gz", label_array(), (2, 2, 3)))
        check_case_files([image], 1, "c", reader=reader)
        check_label_fits_image(label, image, "c", reader=reader)

    def test_are_a_difference_of_grids(self, tmp_path: Path) -> None:
        image = write_volume(tmp_path / "c_0000.nii.gz", ct_array(), (2, 2, 3))
        label = tilt(write_volume(tmp_path / "c.nii.gz", label_array(), (2, 2, 3)), 2)
        with pytest.raises(ImageError, match=r"does not fit image.*direction"):
            check_label_fits_image(label, image, "c", reader="NibabelIO")


def test_nifti_2_is_called_that_and_read_by_nibabel(tmp_path: Path) -> None:
    path = tmp_path / "c_0000.nii.gz"
    nib.save(nib.Nifti2Image(ct_array().T, np.eye(4)), path)
    with pytest.raises(ImageError, match=r"a NIfTI-2 image, which ITK.*does not read"):
        check_case_files([path], 1, "c")
    check_case_files([path], 1, "c", reader="NibabelIO")


def volume(path: Path, **header: object) -> Path:
    return edit_nifti_header(write_volume(path, ct_array(), (2, 2, 3)), **header)


class TestSpacing:
    @pytest.mark.parametrize(
        ("header", "words"),
        [
            ({"pixdim": (0, 2, 3)}, ["above 0 mm, found (0, 2, 3)"]),
            ({"pixdim": (0, 0, 0)}, ["above 0 mm, found (0, 0, 0)"]),
            ({"pixdim": (2, np.nan, 3)}, ["above 0 mm, found (2, nan, 3)"]),
            ({"pixdim": (2, 2, np.inf)}, ["above 0 mm, found (2, 2, inf)"]),
            ({"pixdim": (-2, 2, 3)}, ["above 0 mm, found (-2, 2, 3)"]),
            ({"pixdim": (2, 2, 51)}, ["from 0.01 to 50 mm, found (2, 2, 51)"]),
            ({"pixdim": (2, 2, 0.001)}, ["from 0.01 to 50 mm, found (2, 2, 0.001)"]),
            ({"xyzt_units": 1}, ["found (2000, 2000, 3000)", "lengths are in meter"]),
            ({"xyzt_units": 3}, ["found (0.002, 0.002, 0.003)", "lengths are in micron"]),
        ],
    )
    @pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
    def test_that_cannot_be_is_named_with_case_and_file(
        self, tmp_path: Path, ending: str, header: dict, words: list[str]
    ) -> None:
        path = volume(tmp_path / f"c_0000{ending}", sform_code=0, **header)
        with pytest.raises(ImageError, match=rf"^c: expected voxel sizes.*c_0000{ending}") as error:
            check_case_files([path], 1, "c")
        assert all(word in str(error.value) for word in words)

    def test_itk_itself_takes_one_mm_for_an_undefined_size(self, tmp_path: Path) -> None:
        """The reason to look at the header as stored."""
        path = volume(tmp_path / "a.nii", sform_code=0, pixdim=(0, np.nan, 3))
        assert SimpleITK.ReadImage(str(path)).GetSpacing()[:2] == (1, 1)

    @pytest.mark.parametrize("pixdim", [(0, 2, 3), (2, np.nan, 3)])
    def test_undefined_is_refused_for_nibabel_too(self, tmp_path: Path, pixdim: tuple[float, ...]) -> None:
        with pytest.raises(ImageError, match="above 0 mm"):
            check_case_files([volume(tmp_path / "c_0000.nii.gz", pixdim=pixdim)], 1, "c", reader="NibabelIO")

    def test_unit_counts_as_the_reader_takes_it(self, tmp_path: Path) -> None:
        check_case_files([volume(tmp_path / "c_0000.nii.gz", xyzt_units=1)], 1, "c", reader="NibabelIO")
        in_metres = volume(tmp_path / "d_0000.nii.gz", xyzt_units=1, sform_code=0, pixdim=(0.002, 0.002, 0.003))
        check_case_files([in_metres], 1, "d")

    @pytest.mark.parametrize("spacing", [(2, 2, 45), (0.02, 0.02, 0.02)])
    def test_of_thick_slices_and_micro_ct_passes(self, tmp_path: Path, spacing: tuple[float, ...]) -> None:
        check_case_files([write_volume(tmp_path / "c_0000.nii.gz", ct_array(), spacing)], 1, "c")

    def test_along_a_single_slice_may_be_999(self, tmp_path: Path) -> None:
        check_case_files([write_volume(tmp_path / "c_0000.nii.gz", ct_array((1, 8, 10)), (2, 2, 999))], 1, "c")

    def test_of_other_formats_and_images_in_memory_is_looked_at(self, tmp_path: Path) -> None:
        path = write_volume(tmp_path / "c_0000.mha", ct_array(), (2000, 2000, 3000))
        with pytest.raises(ImageError, match="found \\(2000, 2000, 3000\\) mm"):
            check_case_files([path], 1, "c")
        with pytest.raises(ImageError, match=r"^image in memory: .*\(x, y, z\)\. Correct"):
            check_spacing(image_geometry(SimpleITK.ReadImage(str(path))), "image in memory")

    def test_of_a_picture_is_not(self, tmp_path: Path) -> None:
        picture = write_volume(tmp_path / "c_0000.png", ct_array((30, 40)).astype(np.uint8), (1e-4, 1e-4))
        check_case_files([picture], 1, "c")


class TestPlannedSize:
    def test_that_memory_cannot_hold_is_named(self) -> None:
        with pytest.raises(ImageError, match=r"^c: .*\(64000, 512000, 512000\) voxels.*62,500,000 GiB a channel"):
            check_planned_size((64, 512, 512), (2000, 1000, 1000), (2, 1, 1), "c")

    def test_of_a_whole_body_passes(self) -> None:
        check_planned_size((1000, 512, 512), (1, 0.9, 0.9), (1, 0.7, 0.7), "c")

    def test_of_a_2d_configuration_leaves_the_first_axis(self) -> None:
        check_planned_size((100, 512, 512), (5000, 0.9, 0.9), (0.9, 0.9), "c")
