from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.dicom.cases import dicom_cases, write_image
from nnunet_3dct.dicom.series import find_series
from nnunet_3dct.errors import ImageError, OutputError
from nnunet_3dct.formats.geometry import geometry_differences, read_geometry
from tests.dicom.makers import ORIGIN, Patient, localizer, oblique, phantom, save_one, series_datasets, write_series
from tests.dicom.test_references import phantom_labels, write_seg

SMALL = phantom((4, 6, 7))


def names(folder: Path) -> list[str]:
    return [item.case for item in dicom_cases(folder)]


def test_cases_are_named_by_their_folders_where_these_are_neutral(tmp_path: Path) -> None:
    for name in ("case_0007", "LIDC-IDRI-0003", "ct2"):
        write_series(tmp_path / name, SMALL)
    assert names(tmp_path) == ["LIDC-IDRI-0003", "case_0007", "ct2"]


@pytest.mark.parametrize(
    "folder",
    [
        "Findmichnicht_Waltraud",  # the name
        "waltraud7",
        "KH-4711-0815",  # the number
        "20230717",  # a date
        "p19510329",
        "1.2.840.113619.2.55.3.604688119.868",  # a UID
        "4711",
        "series of liver",
        "Liver",
    ],
)
def test_cases_are_numbered_where_a_folder_may_name_a_patient(tmp_path: Path, folder: str) -> None:
    write_series(tmp_path / "case_0007", SMALL)
    write_series(tmp_path / folder, SMALL)
    assert names(tmp_path) == ["case_0001", "case_0002"]


def test_cases_are_numbered_where_series_share_a_folder_or_a_name(tmp_path: Path) -> None:
    write_series(tmp_path / "one" / "s1", SMALL, names="a{}")
    write_series(tmp_path / "one" / "s1", SMALL, names="b{}")
    assert names(tmp_path / "one") == ["case_0001", "case_0002"]
    write_series(tmp_path / "two" / "x" / "s1", SMALL)
    write_series(tmp_path / "two" / "y" / "s1", SMALL)
    assert names(tmp_path / "two") == ["case_0001", "case_0002"]


def test_an_archive_names_its_only_series(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", SMALL)
    for name in ("case_0007.zip", "Waltraud7.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path in files:
                archive.write(path, path.name)
    assert names(tmp_path / "case_0007.zip") == ["case_0007"]
    assert names(tmp_path / "Waltraud7.zip") == ["case_0001"]


def test_numbers_are_the_same_in_every_run_and_wherever_the_files_lie(tmp_path: Path) -> None:
    made = [series_datasets(SMALL, patient=Patient(number=f"N{n}")) for n in range(4)]
    for name, order in (("first", (0, 1, 2, 3)), ("second", (3, 1, 0, 2))):
        for place, number in enumerate(order):
            for index, item in enumerate(made[number]):
                save_one(item, tmp_path / name / f"{place}" / f"{index}")
    first, second = dicom_cases(tmp_path / "first"), dicom_cases(tmp_path / "second")
    assert [item.series.uid for item in first] == [item.series.uid for item in second]
    assert [item.case for item in first] == ["case_0001", "case_0002", "case_0003", "case_0004"]


def test_image_is_written_as_nifti_on_the_same_grid(tmp_path: Path) -> None:
    write_series(tmp_path / "ct1", SMALL, orientation=oblique())
    (case,) = dicom_cases(tmp_path)
    volume = case.write_nifti(tmp_path / "ct1_0000.nii.gz")
    written = SimpleITK.ReadImage(str(tmp_path / "ct1_0000.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(written), SMALL)
    assert written.GetPixelID() == SimpleITK.sitkInt16
    grid = read_geometry(tmp_path / "ct1_0000.nii.gz")
    assert not geometry_differences(grid, read_geometry(save_as_mha(volume.image, tmp_path / "a.mha")))
    assert grid.origin == pytest.approx(ORIGIN, abs=1e-4)


def save_as_mha(image: SimpleITK.Image, path: Path) -> Path:
    write_image(image, path)
    return path


def test_masks_come_with_their_case(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct1", phantom())
    write_series(tmp_path / "ct2", phantom())
    write_seg(tmp_path / "masks.dcm", files, phantom_labels())
    assert {item.case: len(item.masks) for item in dicom_cases(tmp_path)} == {"ct1": 1, "ct2": 0}


def test_a_source_without_series_says_what_was_left_out(tmp_path: Path) -> None:
    for number in range(3):
        save_one(localizer(series_datasets(SMALL)[0]), tmp_path / f"{number}.dcm")
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ImageError, match=r"found none in 4 files \(3 a localizer, 1 no DICOM file, but text\)"):
        dicom_cases(tmp_path)


def test_an_image_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    write_series(tmp_path / "ct1", SMALL)
    (case,) = dicom_cases(tmp_path / "ct1")
    with pytest.raises(OutputError, match="cannot be written"):
        case.write_nifti(tmp_path / "nowhere" / "a.nii.gz")
    assert find_series(tmp_path).series[0].folder_name == "ct1"
    assert [path.name for path in tmp_path.iterdir()] == ["ct1"]
