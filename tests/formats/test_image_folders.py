from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.image_folders import hidden_images, labels_left_out, list_images, list_labels
from tests.utils import ct_array, write_volume

ENDING = ".nii.gz"


def touch(folder: Path, *names: str) -> Path:
    """Files of which only the names matter."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_files_of_a_case_are_listed_in_the_order_of_its_channels(tmp_path: Path) -> None:
    touch(tmp_path, "b_0000.nii.gz", "a_0001.nii.gz", "a_0000.nii.gz", "b_0001.nii.gz", "dataset.json", "notes.txt")
    listed = list_images(tmp_path, ENDING, 2)
    assert [case.case for case in listed.cases] == ["a", "b"]
    assert [path.name for path in listed.cases[0].files] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert listed.left_out == {}


@pytest.mark.parametrize(
    "case", ["1.2.840.113", "a b", "x,y;z", '<b>&"q"', "p_0000_0000", "umlaut_ü", "-dash", "val.nii"]
)
def test_any_name_of_a_case_is_taken_as_it_is(tmp_path: Path, case: str) -> None:
    touch(tmp_path, f"{case}_0000.nii.gz", "other_0000.nii.gz")
    assert case in [images.case for images in list_images(tmp_path, ENDING).cases]
    touch(tmp_path / "labels", f"{case}.nii.gz")
    assert list(list_labels(tmp_path / "labels", ENDING)) == [case]


@pytest.mark.parametrize(
    ("names", "case", "reason"),
    [
        (["scan_0000.nii.gz", "scan_0002.nii.gz"], "scan", "without a gap, found 0000, 0002"),
        (["scan_0042.nii.gz"], "scan", "found 0042; where 0042 belongs to the name of the case, add _0000 to it"),
        (["scan_0001.nii.gz", "scan_0002.nii.gz"], "scan", "found 0001, 0002"),
        (["scan_0000.nii.gz", "scan_0001.nii.gz", "scan_0002.nii.gz"], "scan", "expected 2 channel(s), found 3"),
    ],
)
def test_case_with_other_channels_is_left_out_with_the_reason(
    tmp_path: Path, names: list[str], case: str, reason: str
) -> None:
    listed = list_images(touch(tmp_path, *names, "good_0000.nii.gz", "good_0001.nii.gz"), ENDING, 2)
    assert [images.case for images in listed.cases] == ["good"]
    assert list(listed.left_out) == [case]
    assert reason in listed.left_out[case]


@pytest.mark.parametrize(
    "name", ["scan.nii.gz", "scan_00000.nii.gz", "scan_01.nii.gz", "_0000.nii.gz", "scan-0000.nii.gz"]
)
def test_misnamed_file_is_left_out_by_name(tmp_path: Path, name: str) -> None:
    listed = list_images(touch(tmp_path, name, "good_0000.nii.gz"), ENDING)
    assert [images.case for images in listed.cases] == ["good"]
    assert "expected a name like <case>_0000.nii.gz" in listed.left_out[name]


@pytest.mark.parametrize(
    "ending", [".nii", ".mha", ".mhd", ".NII.GZ", ".Nii.gz", ".nrrd", ".img", ".hdr", ".dcm", ".gipl"]
)
def test_image_of_another_format_is_left_out_by_name(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, "good_0000.nii.gz", f"other_0000{ending}", "preview.png", "scan.json")
    assert list(list_images(tmp_path, ENDING).left_out) == [f"other_0000{ending}"]
    touch(tmp_path / "labels", "good.nii.gz", f"other{ending}", "preview.png")
    assert list(list_labels(tmp_path / "labels", ENDING)) == ["good"]
    assert list(labels_left_out(tmp_path / "labels", ENDING)) == [f"other{ending}"]


def test_folder_and_broken_link_with_the_name_of_an_image_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "good_0000.nii.gz")
    (tmp_path / "folder_0000.nii.gz").mkdir()
    (tmp_path / "link_0000.nii.gz").symlink_to(tmp_path / "nowhere")
    listed = list_images(tmp_path, ENDING)
    assert "found a folder" in listed.left_out["folder_0000.nii.gz"]
    assert "a link that leads nowhere" in listed.left_out["link_0000.nii.gz"]
    assert len(listed.cases) == 1


def test_itk_reads_the_twin(tmp_path: Path) -> None:
    """The reason to refuse twins; once this fails they may pass."""
    for ending, value in ((".nii.gz", 7), (".nii", 3)):
        write_volume(tmp_path / f"a{ending}", np.full((2, 3, 4), value, np.int16))
    assert SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))).max() == 3


def test_itk_reads_zeros_where_a_folder_is_the_twin(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", ct_array())
    (tmp_path / "a.nii").mkdir()
    assert not SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))).any()


@pytest.mark.parametrize(
    ("ending", "other"),
    [
        (".nii.gz", ".nii"),
        (".nii", ".nii.gz"),
        (".nii.gz", ".NII.GZ"),
        (".NII.GZ", ".NII"),
        (".nii.gz", ".mha"),
        (".mha", ".mhd"),
        (".nrrd", ".nhdr"),
        (".nii.gz", ".hdr"),
        (".tif", ".png"),
    ],
)
def test_same_image_in_two_formats_is_refused_and_both_are_named(tmp_path: Path, ending: str, other: str) -> None:
    touch(tmp_path / "images", f"good_0000{ending}", f"twin_0000{ending}", f"twin_0000{other}")
    with pytest.raises(ImageError, match="the same name with two endings") as error:
        list_images(tmp_path / "images", ending)
    assert f"twin_0000{ending}" in str(error.value) and f"twin_0000{other}" in str(error.value)
    assert "good" not in str(error.value)
    touch(tmp_path / "labels", f"twin{ending}", f"twin{other}")
    with pytest.raises(ImageError, match="the same name with two endings"):
        list_labels(tmp_path / "labels", ending)


def test_folder_beside_its_unpacked_self_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz")
    (tmp_path / "a_0000.nii").mkdir()
    with pytest.raises(ImageError, match=r"a_0000\.nii and a_0000\.nii\.gz"):
        list_images(tmp_path, ENDING)


def test_preview_and_two_images_of_other_formats_are_no_twins(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a_0000.png", "b_0000.mha", "b_0000.mhd")
    listed = list_images(tmp_path, ENDING)
    assert [case.case for case in listed.cases] == ["a"]
    assert list(listed.left_out) == ["b_0000.mha", "b_0000.mhd"]


def test_hidden_files_are_no_cases_and_can_be_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "._a_0000.nii.gz", "._b_0000.nii", ".DS_Store", "._classification.json")
    listed = list_images(tmp_path, ENDING)
    assert [case.case for case in listed.cases] == ["a"] and listed.left_out == {}
    assert hidden_images(tmp_path) == ["._a_0000.nii.gz", "._b_0000.nii"]
    assert hidden_images(tmp_path / "nowhere") == []
    touch(tmp_path / "labels", "a.nii.gz", "._a.nii.gz")
    assert list(list_labels(tmp_path / "labels", ENDING)) == ["a"]


@pytest.mark.parametrize("list_files", [list_images, list_labels])
def test_folder_that_is_missing_or_holds_no_such_image_is_named(tmp_path: Path, list_files) -> None:
    with pytest.raises(ImageError, match="nowhere: expected a folder, found none"):
        list_files(tmp_path / "nowhere", ENDING)
    with pytest.raises(ImageError, match="found nothing"):
        list_files(tmp_path, ENDING)
    touch(tmp_path, "._a_0000.nii.gz", "scan.mha")
    with pytest.raises(ImageError, match=r"\(the ending in dataset\.json\), found .*scan\.mha"):
        list_files(tmp_path, ENDING)
