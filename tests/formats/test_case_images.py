from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats import case_images
from nnunet_3dct.formats.case_images import read_case_images
from nnunet_3dct.formats.image_readers import find_reader_class
from tests.utils import ct_array, edit_nifti_header, flip_byte, tilt, truncate, unpack, with_nan, write_volume

READERS = ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"]


def two_channels(folder: Path, ending: str = ".nii.gz") -> list[Path]:
    return [
        write_volume(folder / f"c_000{n}{ending}", ct_array((20, 30, 40), seed=n), (0.8, 0.8, 2.5), (1, 2, 3))
        for n in range(2)
    ]


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("name", READERS)
def test_images_and_properties_are_those_of_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, room: bool
) -> None:
    files, reader = two_channels(tmp_path), find_reader_class(name)()
    expected, properties = reader.read_images([str(path) for path in files])
    if not room:
        monkeypatch.setattr(case_images, "_room_for", lambda *_: None)
    array, found = read_case_images(files, reader, 2, "c")
    assert array.dtype == np.float32 and (array == expected).all()
    assert {key: np.asarray(value).tolist() for key, value in found.items() if key == "spacing"} == {
        "spacing": np.asarray(properties["spacing"]).tolist()
    }
    assert repr(found) == repr(properties)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_other_formats_and_plain_files_are_read(tmp_path: Path, ending: str) -> None:
    files, reader = two_channels(tmp_path, ending), find_reader_class("SimpleITKIO")()
    if ending == ".nii.gz":
        unpack(files[0])
    assert (read_case_images(files, reader, 2, "c")[0][1] == ct_array((20, 30, 40), seed=1)).all()


def test_compressed_file_is_decompressed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, reader = two_channels(tmp_path), find_reader_class("SimpleITKIO")()
    read: list[int] = []
    read1 = gzip.GzipFile.read1
    monkeypatch.setattr(gzip.GzipFile, "read1", lambda self, size: read.append(1) or read1(self, size))
    seen: list[str] = []

    class Watched:
        def read_images(self, names: list[str]) -> tuple:
            seen.extend(names)
            assert not any(Path(name).read_bytes().startswith(b"\x1f\x8b") for name in names)
            return reader.read_images(names)

    read_case_images(files, Watched(), 2, "c")  # type: ignore[arg-type]
    assert read and len(seen) == 2
    assert not any(Path(name).exists() for name in seen)


@pytest.mark.parametrize("name", ["SimpleITKIO", "NibabelIO"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: truncate(path, 0.5), "truncated"),
        (lambda path: flip_byte(path, 0.7), "damaged"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (lambda path: path.unlink(), "found nothing"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "a ZIP archive"),
        (lambda path: write_volume(path, with_nan(ct_array((20, 30, 40))), (0.8, 0.8, 2.5), (1, 2, 3)), "NaN"),
        (lambda path: write_volume(path, ct_array((20, 30, 41))), "different grids"),
        (lambda path: edit_nifti_header(path, pixdim=(0, 1, 1)), "voxel sizes"),
    ],
)
def test_damage_is_named_by_the_files_own_path(tmp_path: Path, name: str, damage, words: str) -> None:
    files = two_channels(tmp_path)
    damage(files[1])
    with pytest.raises(ImageError, match=words) as error:
        read_case_images(files, find_reader_class(name)(), 2, "c")
    assert "c_0001.nii.gz" in str(error.value)
    assert str(case_images._MEMORY) not in str(error.value)


def test_channels_of_the_same_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    files = [write_volume(tmp_path / f"{n}" / "scan.nii.gz", ct_array(seed=n)) for n in range(2)]
    array, _ = read_case_images(files, find_reader_class("SimpleITKIO")(), 2, "c")
    assert all((array[n] == ct_array(seed=n)).all() for n in range(2))


def test_sheared_axes_depend_on_the_reader(tmp_path: Path) -> None:
    path = tilt(write_volume(tmp_path / "c_0000.nii.gz", ct_array(), (2, 2, 3)))
    with pytest.raises(ImageError, match="sheared") as error:
        read_case_images([path], find_reader_class("SimpleITKIO")(), 1, "c")
    assert str(path) in str(error.value)
    assert read_case_images([path], find_reader_class("NibabelIO")(), 1, "c")[0].shape == (1, 6, 8, 10)
