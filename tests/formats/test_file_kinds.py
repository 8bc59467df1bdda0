from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.file_kinds import what_is
from nnunet_3dct.formats.image_files import (
    check_case_files,
    check_image_file,
    is_constant,
    unpacked_under_a_compressed_name,
)
from tests.utils import ct_array, truncate, unpack, with_nan, write_volume


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("image.nii", content)
    return stream.getvalue()


DICOM = bytes(128) + b"DICM" + bytes(200)
HTML = b"\n<!DOCTYPE html><html><body>Please sign in</body></html>"
WRONG = [
    (zipped(b"x" * 400), "a ZIP archive"),
    (DICOM, "a DICOM file"),
    (HTML, "a web page (HTML)"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a pointer of Git LFS"),
    (b"Not found. " * 50, "text: 'Not found. "),
    (bz2.compress(b"x" * 400), "a bzip2-compressed file"),
    (b"NRRD0004\ntype: short\n" + bytes(400), "an NRRD image"),
    (b"ObjectType = Image\nNDims = 3\n", "a MetaImage"),
    (bytes(4000), "a file that begins with zeros"),
    (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(140), "an AppleDouble file of macOS"),
]


@pytest.mark.parametrize(("content", "name"), WRONG)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_file_that_is_something_else_is_called_by_what_it_is(
    tmp_path: Path, ending: str, content: bytes, name: str
) -> None:
    path = tmp_path / f"c_0000{ending}"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"c_0000.*: expected a NIfTI image") as error:
        check_image_file(path)
    assert f"found {name}" in str(error.value)
    assert "download" not in str(error.value)


def test_something_else_that_is_compressed_is_called_by_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c_0000.nii.gz"
    path.write_bytes(gzip.compress(HTML))
    with pytest.raises(ImageError, match=r"found a gzip-compressed file that holds a web page \(HTML\)"):
        check_image_file(path)


class TestPlainNiftiWithACompressedName:
    def test_is_read_as_itk_reads_it(self, tmp_path: Path) -> None:
        path = unpack(write_volume(tmp_path / "c_0000.nii.gz", ct_array()))
        assert SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).tolist() == ct_array().tolist()
        assert what_is(path) == "a NIfTI image that is not compressed"
        assert unpacked_under_a_compressed_name(path)
        check_case_files([path], 1, "c", refuse_constant=True)

    def test_is_still_compared_with_the_length_in_its_header(self, tmp_path: Path) -> None:
        path = truncate(unpack(write_volume(tmp_path / "c_0000.nii.gz", ct_array((20, 30, 40)))), 0.5)
        with pytest.raises(ImageError, match="truncated or damaged; its header asks for 48352 bytes, found 24176"):
            check_image_file(path)

    def test_is_still_searched_for_nan(self, tmp_path: Path) -> None:
        path = unpack(write_volume(tmp_path / "c_0000.nii.gz", with_nan(ct_array(), 3)))
        with pytest.raises(ImageError, match="infinity in 3 of 480"):
            check_case_files([path], 1, "c")

    def test_is_called_that_where_nibabel_reads_the_dataset(self, tmp_path: Path) -> None:
        path = unpack(write_volume(tmp_path / "c_0000.nii.gz", ct_array()))
        with pytest.raises(
            ImageError, match=r"a NIfTI image that is not compressed\. NibabelIO does not read it"
        ) as error:
            check_case_files([path], 1, "c", reader="NibabelIO")
        assert "compress it by gzip" in str(error.value) and "download" not in str(error.value)


def test_compressed_nifti_with_a_plain_name_is_called_that(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.nii.gz", ct_array()).rename(tmp_path / "c_0000.nii")
    with pytest.raises(
        ImageError, match=r"found a NIfTI image compressed by gzip. Name it \.nii\.gz, or decompress it"
    ):
        check_image_file(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_of_either_version_and_byte_order_is_known(tmp_path: Path, kind: type, order: str) -> None:
    header = kind.header_class(endianness=order)
    nib.save(kind(ct_array().astype(f"{order}i2"), np.eye(4), header), tmp_path / "a.nii")
    assert what_is(tmp_path / "a.nii") == "a NIfTI image that is not compressed"
    check_image_file(tmp_path / "a.nii", reader="NibabelIO")


def test_twin_of_a_file_that_is_named_alone_is_refused(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "c_0000.nii.gz", ct_array())
    check_case_files([path], 1, "c")
    write_volume(tmp_path / "c_0000.nii", ct_array(seed=1))
    with pytest.raises(ImageError, match=r"found c_0000\.nii beside it, which ITK would open in its place"):
        check_case_files([path], 1, "c")
    check_case_files([path], 1, "c", reader="NibabelIO")  # which opens what it is asked for


class TestImageWithoutContent:
    @pytest.mark.parametrize("value", [0, -1024])
    @pytest.mark.parametrize("dtype", [np.int16, np.float32])
    @pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
    def test_is_refused_where_asked_for(self, tmp_path: Path, ending: str, dtype: type, value: int) -> None:
        path = write_volume(tmp_path / f"c_0000{ending}", np.full((6, 8, 10), value, dtype))
        check_case_files([path], 1, "c")
        with pytest.raises(ImageError, match=rf"c \(c_0000{ending}\): .*the same value in every voxel"):
            check_case_files([path], 1, "c", refuse_constant=True)

    def test_is_found_in_one_channel_of_two(self, tmp_path: Path) -> None:
        files = [write_volume(tmp_path / f"c_000{n}.nii.gz", ct_array() * (1 - n)) for n in range(2)]
        with pytest.raises(ImageError, match=r"c \(c_0001\.nii\.gz\)"):
            check_case_files(files, 2, "c", refuse_constant=True)

    @pytest.mark.parametrize("where", [0, -1])
    @pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
    def test_one_other_voxel_is_content(self, tmp_path: Path, ending: str, where: int) -> None:
        array = np.zeros((130, 64, 64), np.int16)  # more than one piece of those that are read at a time
        array.reshape(-1)[where] = 1
        path = write_volume(tmp_path / f"c_0000{ending}", array)
        check_case_files([path], 1, "c", refuse_constant=True)

    def test_two_halves_that_are_each_constant_are_content(self, tmp_path: Path) -> None:
        array = np.zeros((4, 512, 512), np.int16)
        array[2:] = 1  # begins where the second piece of a MiB does
        path = write_volume(tmp_path / "c_0000.nii.gz", array)
        check_case_files([path], 1, "c", refuse_constant=True)

    def test_single_voxel_is_not_called_that(self, tmp_path: Path) -> None:
        path = write_volume(tmp_path / "c_0000.nii.gz", np.zeros((1, 1, 1), np.int16))
        check_case_files([path], 1, "c", refuse_constant=True)

    def test_array_in_memory(self) -> None:
        assert is_constant(np.zeros((2, 3))) and is_constant(np.full((2, 3), -1024))
        assert not any(is_constant(array) for array in (np.eye(2), np.zeros((1, 1)), np.zeros(0)))
