from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats import image_files as integrity
from nnunet_3dct.formats.image_files import (
    check_case_files,
    check_finite,
    check_image_file,
    check_label_fits_image,
)
from nnunet_3dct.formats.label_values import check_label_values
from tests.utils import (
    ct_array,
    empty,
    flip_byte,
    label_array,
    truncate,
    with_nan,
    write_sheared_volume,
    write_volume,
    write_volume_without_voxels,
)

FORMATS = [".nii.gz", ".nii", ".mha", ".nrrd", ".gipl"]


@pytest.mark.parametrize("ending", [*FORMATS, ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_whole_file_passes(tmp_path: Path, ending: str, dtype: type) -> None:
    check_image_file(write_volume(tmp_path / f"a{ending}", label_array().astype(dtype)))


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9, 0.995])
@pytest.mark.parametrize("ending", FORMATS)
def test_truncated_file_is_found(tmp_path: Path, ending: str, fraction: float) -> None:
    path = truncate(write_volume(tmp_path / f"a{ending}", ct_array((20, 30, 40))), fraction)
    with pytest.raises(ImageError, match="a" + ending) as error:
        check_image_file(path)
    assert "again" in str(error.value)


def test_simpleitk_itself_reads_a_truncated_file_without_complaint(tmp_path: Path) -> None:
    """The reason for the check; once this fails the check may go."""
    path = truncate(write_volume(tmp_path / "a.nii.gz", ct_array((20, 30, 40))), 0.5)
    assert SimpleITK.ReadImage(str(path)).GetSize() == (40, 30, 20)


def test_message_of_a_truncated_file_gives_both_lengths(tmp_path: Path) -> None:
    path = truncate(write_volume(tmp_path / "a.nii", ct_array((20, 30, 40))), 0.5)
    with pytest.raises(ImageError, match=rf"asks for {352 + 2 * 20 * 30 * 40} bytes, found 24176\."):
        check_image_file(path)


def test_message_of_a_truncated_gzip_file_says_how_far_it_goes(tmp_path: Path) -> None:
    path = truncate(write_volume(tmp_path / "a.nii.gz", ct_array((20, 30, 40))), 0.5)
    with pytest.raises(ImageError, match=r"asks for 48352 bytes, found 2[0-9]{4} after") as error:
        check_image_file(path)
    assert "gzip stream breaks off" in str(error.value)


def test_gzip_file_that_lacks_only_its_checksum_is_truncated(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.nii.gz", ct_array())
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ImageError, match="gzip stream breaks off"):
        check_image_file(path)


def test_whole_gzip_stream_of_a_truncated_nifti_is_found(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.nii", ct_array())
    packed = tmp_path / "a.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()[:-100]))
    path.unlink()
    with pytest.raises(ImageError, match="asks for 1312 bytes, found 1212 after decompression"):
        check_image_file(packed)


def test_damaged_gzip_stream_is_found(tmp_path: Path) -> None:
    path = flip_byte(write_volume(tmp_path / "a.nii.gz", ct_array((20, 30, 40))), 0.7)
    with pytest.raises(ImageError, match="gzip stream is damaged"):
        check_image_file(path)


def test_decompression_needs_little_memory(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.nii.gz", np.zeros((40, 512, 512), np.int16))  # 21 MB
    tracemalloc.start()
    check_image_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * integrity._CHUNK


@pytest.mark.parametrize("ending", [*FORMATS, ".png"])
def test_file_of_zero_bytes_is_named(tmp_path: Path, ending: str) -> None:
    path = empty(tmp_path / f"a{ending}")
    with pytest.raises(ImageError, match=f"a{ending}: expected an image, found a file of 0 bytes"):
        check_image_file(path)


def test_missing_file_and_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"b\.nii\.gz: expected an image file, found nothing"):
        check_image_file(tmp_path / "b.nii.gz")
    with pytest.raises(ImageError, match="found a folder"):
        check_image_file(tmp_path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".png", ".gipl"])
def test_text_with_the_name_of_an_image_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_text("not an image " * 100)
    with pytest.raises(ImageError, match=f"a{ending}"):
        check_image_file(path)


def test_truncated_picture_is_refused(tmp_path: Path) -> None:
    path = truncate(write_volume(tmp_path / "a.png", ct_array((30, 40)).astype(np.uint8)), 0.5)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read"):
        check_image_file(path)


def test_volume_without_voxels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"shape \(0, 4, 4\), without voxels"):
        check_image_file(write_volume_without_voxels(tmp_path / "a.nii.gz"))
    with pytest.raises(ImageError, match="without voxels"):
        check_finite(np.zeros((0, 3)), "case_1")


def test_sound_case_passes(tmp_path: Path) -> None:
    files = [write_volume(tmp_path / f"c_000{n}.nii.gz", ct_array(seed=n), (1, 1, 2)) for n in range(2)]
    check_case_files(files, 2, "c")


def test_channels_of_a_4d_volume_are_counted(tmp_path: Path) -> None:
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(ct_array(seed=n)) for n in range(3)])
    path = tmp_path / "c_0000.nii.gz"
    SimpleITK.WriteImage(image, str(path))
    check_case_files([path], 3, "c")


def test_missing_channel_is_named(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "c_0000.nii.gz", ct_array())
    with pytest.raises(ImageError, match=r"c: expected 2 channel\(s\), found 1 \(c_0000\.nii\.gz\)"):
        check_case_files([path], 2, "c")
    with pytest.raises(ImageError, match=r"c: expected 1 channel\(s\), found 0\."):
        check_case_files([], 1, "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"array": ct_array((5, 8, 10))}, r"size \(x, y, z\) expected \(10, 8, 6\), found \(10, 8, 5\)"),
        ({"spacing": (1, 1, 3)}, r"spacing in mm expected \(1, 1, 2\), found \(1, 1, 3\)"),
        ({"origin": (0, 5, 0)}, r"origin in mm expected \(0, 0, 0\), found \(0, 5, 0\)"),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, r"direction expected \(1, 0,.*found \(-1, 0"),
    ],
)
def test_channels_and_labels_on_another_grid_are_refused_with_values(
    tmp_path: Path, change: dict, message: str
) -> None:
    sound: dict[str, Any] = {"array": ct_array(), "spacing": (1, 1, 2)}
    first = write_volume(tmp_path / "c_0000.nii.gz", **sound)
    second = write_volume(tmp_path / "c_0001.nii.gz", **{**sound, **change})
    with pytest.raises(ImageError, match="c: the channels lie on different grids.*" + message):
        check_case_files([first, second], 2, "c")
    with pytest.raises(ImageError, match=r"c: label .* does not fit image c_0000\.nii\.gz: " + message):
        check_label_fits_image(second, first, "c")


def test_rounding_of_the_header_is_no_difference(tmp_path: Path) -> None:
    turn = [np.cos(0.3), -np.sin(0.3), 0, np.sin(0.3), np.cos(0.3), 0, 0, 0, 1]
    grid = {
        "spacing": (0.7363281, 0.7363281, 2.0),
        "origin": (-201.3333, 99.1111, 1234.567),
        "direction": turn,
    }
    image = write_volume(tmp_path / "c_0000.nii.gz", ct_array(), **grid)
    check_label_fits_image(write_volume(tmp_path / "c.mha", label_array(), **grid), image, "c")


def test_sheared_axes_are_refused(tmp_path: Path) -> None:
    path = write_sheared_volume(tmp_path / "c_0000.nii.gz", ct_array())
    with pytest.raises(
        ImageError, match=r"c_0000\.nii\.gz: its axes are sheared: they meet at 73\.3, 90, 90.*NibabelIO"
    ):
        check_case_files([path], 1, "c")


@pytest.mark.parametrize("voxels", [1, 480])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_nan_is_counted(tmp_path: Path, ending: str, voxels: int) -> None:
    path = write_volume(tmp_path / f"c_0000{ending}", with_nan(ct_array(), voxels))
    with pytest.raises(ImageError, match=rf"c \(c_0000{ending}\): .* infinity in {voxels} of 480 voxels"):
        check_case_files([path], 1, "c")
    check_case_files([path], 1, "c", read_voxels=False)


def test_simpleitk_itself_reads_nan_in_a_nifti_file_as_zero(tmp_path: Path) -> None:
    """The reason to look at the stored values."""
    path = write_volume(tmp_path / "a.nii.gz", with_nan(ct_array(), 480))
    assert not SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).any()


def test_infinity_is_refused() -> None:
    with pytest.raises(ImageError, match="infinity in 1 of 2"):
        check_finite(np.array([0.0, -np.inf]), "c")
    check_finite(np.array([0, 1]), "c")


def test_strange_label_values_are_counted(tmp_path: Path) -> None:
    labels = label_array()
    labels[0, 0, :4] = 7
    path = write_volume(tmp_path / "c.nii.gz", labels)
    with pytest.raises(ImageError, match=r"expected the labels \[0, 1, 2\].*found also 7 \(4 voxels\)"):
        check_label_values(path, [2, 1, 0], "c")
    check_label_values(path, [0, 1, 2, 7], "c")


def test_float_labels_pass_when_whole_and_fail_otherwise(tmp_path: Path) -> None:
    labels = label_array().astype(np.float32)
    check_label_values(write_volume(tmp_path / "a.nii.gz", labels), [0, 1, 2], "c")
    labels[0, 0, 0] = 0.5
    with pytest.raises(ImageError, match=r"0\.5 \(1 voxels\)"):
        check_label_values(write_volume(tmp_path / "b.nii.gz", labels), [0, 1, 2], "c")
