"""What can be put right in an image or its mask is found, and what cannot is refused with the number."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunet_3dct.data.repairs import (
    COMPRESSION,
    DIRECTION,
    GRID,
    INTEGERS,
    ONE_VOLUME,
    VALUES,
    find_repairs,
    summarize_repairs,
)
from nnunet_3dct.errors import ImageError
from tests.utils import ct_array, label_array, scale_labels, unpack, write_volume

AFFINE = np.array([[-0.7, 0, 0, 100], [0, -0.7, 0, 80], [0, 0, 2, -300], [0, 0, 0, 1]])


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """A NIfTI file with an sform alone."""
    image = nib.Nifti1Image(array.transpose(), affine)
    image.set_sform(affine, 1)
    image.header["qform_code"] = 0
    nib.save(image, path)
    return path


def sheared(by: float) -> np.ndarray:
    """``AFFINE`` with its second axis leaning towards the first."""
    affine = AFFINE.copy()
    affine[0, 1] = affine[1, 1] * by
    return affine


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return nifti(tmp_path / "case_0000.nii.gz", ct_array())


def kinds(label: Path | None, image: Path | None) -> list[str]:
    return [repair.kind for repair in find_repairs(label, image)]


def test_sound_case_needs_nothing(image: Path, tmp_path: Path) -> None:
    assert find_repairs(nifti(tmp_path / "case.nii.gz", label_array()), image) == []


def test_scaled_mask_is_snapped_and_counted(image: Path, tmp_path: Path) -> None:
    label = scale_labels(nifti(tmp_path / "case.nii.gz", label_array()), 1.0000153 / 10000)
    values, integers = find_repairs(label, image)
    assert (values.kind, integers.kind) == (VALUES, INTEGERS)
    assert values.count == int((label_array() > 0).sum())
    assert "1.0000153 in " in values.found and integers.found.startswith("int16, scaled by")


def test_whole_float_mask_becomes_integers_alone(image: Path, tmp_path: Path) -> None:
    assert kinds(nifti(tmp_path / "case.nii.gz", label_array().astype(np.float32)), image) == [INTEGERS]


@pytest.mark.parametrize("value", [1.011, 0.5, -1.0, np.nan, np.inf, 1e9])
def test_value_further_than_the_tolerance_is_refused(value: float, image: Path, tmp_path: Path) -> None:
    array = label_array().astype(np.float32)
    array[2, 2, 2] = value
    with pytest.raises(ImageError, match=r"within 0\.01 of the whole numbers.*1 voxels"):
        find_repairs(nifti(tmp_path / "case.nii.gz", array), image)


@pytest.mark.parametrize("value", [0.991, 1.009, 2.0099])
def test_value_within_the_tolerance_is_not(value: float, image: Path, tmp_path: Path) -> None:
    array = label_array().astype(np.float32)
    array[2, 2, 2] = value
    assert kinds(nifti(tmp_path / "case.nii.gz", array), image) == [VALUES, INTEGERS]


def test_mask_beside_its_image_by_rounding(image: Path, tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 0.02
    (repair,) = find_repairs(nifti(tmp_path / "case.nii.gz", label_array(), affine), image)
    assert repair.kind == GRID and "origin by 0.02 mm" in repair.found


def test_mask_elsewhere_is_refused(image: Path, tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 0.5
    with pytest.raises(ImageError, match="does not fit its image: origin"):
        find_repairs(nifti(tmp_path / "case.nii.gz", label_array(), affine), image)


@pytest.mark.parametrize("by", [3e-4, 9.9e-4])
def test_axes_nearly_at_right_angles_are_repaired(by: float, tmp_path: Path) -> None:
    image = nifti(tmp_path / "case_0000.nii.gz", ct_array(), sheared(by))
    assert kinds(None, image) == [DIRECTION]
    assert kinds(nifti(tmp_path / "case.nii.gz", label_array(), sheared(by)), image) == [DIRECTION, DIRECTION]


@pytest.mark.parametrize("by", [1.1e-3, 0.2])
def test_sheared_axes_are_refused_with_the_number(by: float, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"within 0.001 of orthonormal, found {np.sin(np.arctan(by)):.4g}"):
        find_repairs(None, nifti(tmp_path / "case_0000.nii.gz", ct_array(), sheared(by)))


def test_sheared_axes_are_no_matter_to_nibabel(tmp_path: Path) -> None:
    assert find_repairs(None, nifti(tmp_path / "case_0000.nii.gz", ct_array(), sheared(0.2)), reader="NibabelIO") == []


def test_fourth_axis_with_one_volume(image: Path, tmp_path: Path) -> None:
    label = nifti(tmp_path / "case.nii.gz", label_array()[None])
    assert kinds(label, nifti(tmp_path / "one_0000.nii.gz", ct_array()[None])) == [ONE_VOLUME, ONE_VOLUME]
    with pytest.raises(ImageError, match="expected one volume, found 2 in one file"):
        find_repairs(None, nifti(tmp_path / "two_0000.nii.gz", np.stack([ct_array()] * 2)))


def test_file_that_is_not_compressed(image: Path) -> None:
    assert kinds(None, unpack(image)) == [COMPRESSION]


def test_other_formats_are_looked_at_too(tmp_path: Path) -> None:
    image = write_volume(tmp_path / "case_0000.mha", ct_array())
    label = label_array().astype(np.float32)
    label[label == 1] = 1.0000153
    assert kinds(write_volume(tmp_path / "case.mha", label, origin=(0.01, 0, 0)), image) == [GRID, VALUES, INTEGERS]


def test_summary_counts_files_and_names_the_command(image: Path, tmp_path: Path) -> None:
    labels = [nifti(tmp_path / f"case_{n}.nii.gz", label_array().astype(np.float32)) for n in range(3)]
    found = {label.name: find_repairs(label, image) for label in labels}
    (line,) = summarize_repairs(found, "Repair it.")
    assert line.startswith("3 files: a mask stored as floating point") and line.endswith("and 1 more. Repair it.")
