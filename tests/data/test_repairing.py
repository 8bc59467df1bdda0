"""Repairs do what they say, nnU-Net's reader agrees, and each is undone bit by bit."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.data.repairing import Repaired, repair, undo_repairs_of
from nnunet_3dct.data.repairs import find_repairs
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.nifti_content import content_from_bytes, read_content, write_content
from tests.data.test_repairs import AFFINE, nifti, sheared
from tests.utils import ct_array, label_array, scale_labels, tilt

IMAGE = "case_0000.nii.gz"


def repaired(label: Path, image: Path) -> Repaired:
    found = [r for r in find_repairs(label, image) if r.file == label]
    result = repair(read_content(label), found, read_content(image), label.name)
    write_content(result.content, label.with_name("repaired.nii.gz"))
    return result


def read(folder: Path) -> SimpleITK.Image:
    return SimpleITK.ReadImage(str(folder / "repaired.nii.gz"))


def undone(result: Repaired) -> bytes:
    original = undo_repairs_of(result.content, result.undo, result.voxels, "case")
    return original.start + original.voxels.tobytes(order="F")


def noisy(seed: int = 0) -> np.ndarray:
    """A mask with another value in each voxel, all of them near a label; some are minus nothing."""
    labels = label_array().astype(np.float64)
    return labels + np.random.default_rng(seed).uniform(-9e-3, 9e-3, labels.shape)


def minus_zero() -> np.ndarray:
    labels = label_array().astype(np.float32)
    labels[0, 0, :3] = -0.0
    return labels


@pytest.mark.parametrize(
    ("array", "as_file"),
    [(label_array() * np.float32(1.0000153), False), (noisy(), True), (minus_zero(), True),
     (label_array().astype(">f8"), False), (label_array()[None].astype(np.float32), False)],
    ids=["scaled", "noisy", "minus_zero", "big_endian", "four_axes"],
)  # fmt: skip
def test_mask_becomes_its_labels_and_back(array: np.ndarray, as_file: bool, tmp_path: Path) -> None:
    image = nifti(tmp_path / IMAGE, ct_array())
    affine = AFFINE.copy()
    affine[1, 3] += 0.01
    label = nifti(tmp_path / "case.nii.gz", array, affine)
    result = repaired(label, image)
    read_back = read(tmp_path)
    assert read_back.GetPixelID() == SimpleITK.sitkUInt8
    assert (SimpleITK.GetArrayFromImage(read_back) == label_array()).all()
    expected = SimpleITK.ReadImage(str(image))
    assert read_back.GetOrigin() == expected.GetOrigin() and read_back.GetDirection() == expected.GetDirection()
    assert (result.voxels is not None) == as_file
    assert undone(result) == gzip.decompress(label.read_bytes())


def test_scaling_factor_is_put_back(tmp_path: Path) -> None:
    image = nifti(tmp_path / IMAGE, ct_array())
    label = scale_labels(nifti(tmp_path / "case.nii.gz", label_array()), 1.0000153 / 10000)
    result = repaired(label, image)
    assert (SimpleITK.GetArrayFromImage(read(tmp_path)) == label_array()).all()
    assert result.undo["values"] == {"0": 0, "1": 10000, "2": 20000}
    assert undone(result) == gzip.decompress(label.read_bytes())


def test_axes_are_put_at_right_angles_and_back(tmp_path: Path) -> None:
    image = nifti(tmp_path / IMAGE, ct_array(), sheared(8e-4))
    found = find_repairs(None, image)
    result = repair(read_content(image), found, None, image.name)
    write_content(result.content, tmp_path / "repaired.nii.gz")
    read_back = read(tmp_path)
    axes = np.reshape(read_back.GetDirection(), (3, 3))
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-6
    assert np.allclose(read_back.GetSpacing(), (0.7, 0.7, 2)) and np.allclose(read_back.GetOrigin(), (-100, -80, -300))
    corner = np.array([10, 8, 6])
    moved = read_back.TransformContinuousIndexToPhysicalPoint(corner.tolist()) * np.array([-1, -1, 1])
    assert np.abs(moved - (sheared(8e-4) @ [*corner, 1])[:3]).max() < 8e-4 * 0.7 * 10
    assert (SimpleITK.GetArrayFromImage(read_back) == ct_array()).all()
    assert undone(result) == gzip.decompress(image.read_bytes())


def test_tilt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"found 0\.2079.*tilted gantry"):
        find_repairs(None, tilt(nifti(tmp_path / IMAGE, ct_array())))


def test_file_that_was_edited_since_is_not_undone(tmp_path: Path) -> None:
    image = nifti(tmp_path / IMAGE, ct_array())
    result = repaired(nifti(tmp_path / "case.nii.gz", label_array().astype(np.float32)), image)
    data = bytearray(result.content.start + result.content.voxels.tobytes(order="F"))
    data[-1] = 2
    with pytest.raises(ImageError, match="has been changed since"):
        undo_repairs_of(content_from_bytes(bytes(data)), result.undo, None, "case")
