from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from nnunet_3dct.dicom.series import find_series, holds_dicom
from nnunet_3dct.dicom.volume import read_series
from nnunet_3dct.errors import ImageError
from tests.dicom.makers import (
    Patient,
    dose_report,
    enhanced_dataset,
    localizer,
    phantom,
    save,
    save_one,
    secondary_capture,
    series_datasets,
    write_series,
)

SMALL = phantom((4, 6, 7))
OTHER = Patient("Zweite^Person", "KH-9999", "19600101", "20240202", "ACC1")


def test_localizers_screen_shots_and_dose_reports_are_left_out_with_a_reason(tmp_path: Path) -> None:
    slices = series_datasets(SMALL)
    save(slices, tmp_path)
    save_one(localizer(slices[0]), tmp_path / "scout.dcm")
    save_one(secondary_capture(slices[0]), tmp_path / "screen.dcm")
    save_one(dose_report(slices[0]), tmp_path / "dose.dcm")
    scan = find_series(tmp_path)
    assert [len(series.files) for series in scan.series] == [4]
    assert scan.left_out == {
        "dose.dcm": "a screen shot",
        "scout.dcm": "a localizer",
        "screen.dcm": "no CT, MR or PET image: Secondary Capture Image Storage",
    }


def test_a_scout_that_does_not_say_so_is_left_out_by_its_orientation(tmp_path: Path) -> None:
    slices = series_datasets(SMALL)
    scout = localizer(slices[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY"]
    save([*slices, scout], tmp_path)
    scan = find_series(tmp_path)
    assert [len(series.files) for series in scan.series] == [4]
    assert scan.left_out == {"IM0005.dcm": "slices of another orientation than the 4 others of the series"}


def test_two_stacks_in_one_series_are_two_series(tmp_path: Path) -> None:
    first = series_datasets(SMALL)
    second = series_datasets(SMALL, orientation=(0, 1, 0, 0, 0, -1))
    for item in second:
        item.SeriesInstanceUID = first[0].SeriesInstanceUID
    save([*first, *second], tmp_path)
    found = find_series(tmp_path).series
    assert [len(series.files) for series in found] == [4, 4]
    assert [series.uid[-2:] for series in found] == ["-1", "-2"]


def test_files_that_are_no_dicom_are_named_and_change_nothing(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a" / "b", SMALL, names="{:d}")  # without an ending
    (tmp_path / "notes.txt").write_text("read me")
    (tmp_path / "a" / "empty.dcm").touch()
    (tmp_path / "a" / "._IM1.dcm").write_bytes(b"\0\5\x16\7" * 40)
    (tmp_path / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + os.urandom(400))
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    scan = find_series(tmp_path)
    assert [sorted(series.files) for series in scan.series] == [sorted(files)]
    assert set(scan.left_out) == {"notes.txt", "a/empty.dcm", "a/._IM1.dcm", "damaged.dcm", "dangling"}
    assert scan.left_out["notes.txt"] == "no DICOM file, but text"


def test_a_cut_off_slice_is_found_without_reading_pixels(tmp_path: Path) -> None:
    files = write_series(tmp_path, SMALL)
    files[3].write_bytes(files[3].read_bytes()[:-10])
    scan = find_series(tmp_path)
    assert [len(series.files) for series in scan.series] == [3]
    assert scan.left_out == {"IM0004.dcm": "cut off: expected 84 bytes of pixels, found 74"}
    assert scan.series[0].unreadable == ("IM0004.dcm",)


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    write_series(tmp_path / "a", SMALL)
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (series,) = find_series(tmp_path).series
    assert len(series.files) == 4


def test_patients_and_studies_have_keys_of_their_own(tmp_path: Path) -> None:
    write_series(tmp_path / "1", SMALL)
    write_series(tmp_path / "2", SMALL)
    write_series(tmp_path / "3", SMALL, patient=OTHER)
    found = find_series(tmp_path).series
    keys = {series.place: (series.patient_key, series.study_key, series.uid) for series in found}
    assert keys["1"][0] == keys["2"][0] != keys["3"][0]
    assert len({value[2] for value in keys.values()}) == len({value[1] for value in keys.values()}) == 3
    assert [s.uid for s in found] == [s.uid for s in find_series(tmp_path).series]  # the same in every run


def test_one_file_is_a_source_too(tmp_path: Path) -> None:
    path = save_one(enhanced_dataset(SMALL), tmp_path / "a.dcm")
    save_one(enhanced_dataset(SMALL), tmp_path / "b.dcm")
    (series,) = find_series(path).series
    assert (series.files, len(series.slices), series.description) == ((path,), 4, "CT, 4 slices of 7 x 6")


def test_an_archive_is_read_and_removed_with_its_last_series(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", SMALL)
    with zipfile.ZipFile(tmp_path / "ct.zip", "w") as archive:
        for path in files:
            archive.write(path, f"deep/{path.name}")
    scan = find_series(tmp_path / "ct.zip")
    series = scan.series[0]
    assert series.place == "deep"
    folder = series.archive.folder
    copy = pickle.loads(pickle.dumps(series))
    assert copy.files == series.files
    del copy, scan
    assert folder.is_dir() and all(path.is_file() for path in series.files)
    del series
    assert not folder.exists()


def test_what_holds_dicom_is_told_from_other_folders(tmp_path: Path) -> None:
    write_series(tmp_path / "ct" / "deep", SMALL)
    (tmp_path / "nifti").mkdir()
    (tmp_path / "nifti" / "a.nii.gz").write_bytes(b"\x1f\x8b" + bytes(200))
    with zipfile.ZipFile(tmp_path / "ct.zip", "w") as archive:
        archive.write(tmp_path / "ct" / "deep" / "IM0001.dcm", "x")
    found = {name: holds_dicom(tmp_path / name) for name in ("ct", "nifti", "ct.zip", "nowhere")}
    assert found == {"ct": True, "nifti": False, "ct.zip": True, "nowhere": False}


def test_a_source_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="found nothing"):
        find_series(tmp_path / "nowhere")


def test_progress_counts_files(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL)
    counted: list[int] = []
    find_series(tmp_path, progress=counted.append)
    assert counted == [1, 2, 3, 4]


def test_files_of_pydicom_are_sorted_in_or_left_out(tmp_path: Path) -> None:
    """Real files of many kinds; none stops the others from being read."""
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    scan = find_series(folder)
    kept = {path.name for series in scan.series for path in series.files}
    assert {"CT_small.dcm", "MR_small.dcm", "693_J2KI.dcm", "MR_small_RLE.dcm", "17106", "4950"} <= kept
    assert {masks.files[0].name for masks in scan.masks} >= {"rtstruct.dcm", "liver_1frame.dcm"}
    reasons = {Path(name).name: reason for name, reason in scan.left_out.items()}
    assert reasons["MR_truncated.dcm"].startswith("cut off")
    assert "RT Dose" in reasons["rtdose.dcm"] and "Ultrasound" in reasons["examples_ybr_color.dcm"]
    assert reasons["DICOMDIR"] == "DICOMDIR, an index of other files"
    assert reasons["IM000000"] == "no pixels"
    assert reasons["README.txt"].startswith("no DICOM file, but text")


def test_images_without_series_are_left_out(tmp_path: Path) -> None:
    slices = series_datasets(SMALL)
    del slices[0].SeriesInstanceUID
    slices[1].SOPClassUID = generate_uid()
    save(slices, tmp_path)
    assert find_series(tmp_path).left_out == {
        "IM0001.dcm": "an image without SeriesInstanceUID",
        "IM0002.dcm": "no CT, MR or PET image: a private kind",
    }


def test_files_without_preamble_are_read(tmp_path: Path) -> None:
    for number, item in enumerate(series_datasets(SMALL)):
        pydicom.dcmwrite(tmp_path / str(number), item, implicit_vr=True, little_endian=True)
    (series,) = find_series(tmp_path).series
    assert len(series.files) == 4


def test_damaged_files_cost_their_own_lines_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """Bytes changed at random: whatever pydicom makes of them, the sound series beside them is found whole."""
    sound = write_series(tmp_path / "sound", SMALL)
    enhanced = save_one(enhanced_dataset(SMALL), tmp_path / "enhanced.dcm").read_bytes()
    random = np.random.default_rng(0)
    for number in range(60):
        content = bytearray(enhanced if number % 2 else sound[1].read_bytes())
        for place in random.integers(132, len(content), 8):
            content[place] = random.integers(256)
        folder = tmp_path / "damaged" / str(number)
        folder.mkdir(parents=True)
        (folder / "a.dcm").write_bytes(content)
    recwarn.clear()
    (tmp_path / "enhanced.dcm").unlink()
    scan = find_series(tmp_path)
    assert any(set(sound) <= set(series.files) for series in scan.series)
    for series in scan.series:
        try:
            read_series(series)
        except ImageError as error:
            assert str(error).startswith(f"series {series.uid}")
    printed = capfd.readouterr()
    assert (printed.out, printed.err, list(recwarn)) == ("", "", [])
