"""What names a patient stays in the source: no file, name, object or message holds it."""

from __future__ import annotations

import dataclasses
import gzip
import re
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from nnunet_3dct.dicom.cases import cases_of, dicom_cases
from nnunet_3dct.dicom.identifiers import Identifiers, kept_identifiers
from nnunet_3dct.dicom.references import read_masks
from nnunet_3dct.dicom.series import Series, find_series
from nnunet_3dct.dicom.volume import read_series
from nnunet_3dct.errors import ImageError
from tests.dicom.makers import (
    Patient,
    dose_report,
    localizer,
    phantom,
    phantom_labels,
    save,
    save_one,
    series_datasets,
    set_pixels,
    write_series,
)
from tests.dicom.test_references import write_seg

PATIENT = Patient()


def assert_clean(text: str, *uids: str) -> None:
    """No identifier of the patient in ``text``, in no case."""
    for secret in (*PATIENT.secrets, *uids, "Ueberweiser"):
        assert secret.lower() not in text.lower(), secret


def words_of(series: Series) -> str:
    """Everything that a series says of itself, but for the paths, which are the user's."""
    fields = {item.name: getattr(series, item.name) for item in dataclasses.fields(series)}
    slices = [dataclasses.replace(item, file=Path()) for item in fields.pop("slices")]
    for name in ("files", "archive"):
        fields.pop(name)
    return f"{fields} {slices} {series.name} {series.description}"


def source(folder: Path) -> tuple[str, str]:
    """A tree as archives write it: folders and files named by the patient; the UIDs of study and series."""
    slices = series_datasets(phantom())
    place = folder / PATIENT.name.replace("^", "_") / f"CT 2023-07-17 {PATIENT.number}"
    save(slices, place, names=f"{PATIENT.number}_{{}}.dcm")
    save_one(localizer(slices[0]), place / f"{PATIENT.name}.dcm")
    save_one(dose_report(slices[0]), place / f"dose_{PATIENT.birth}.dcm")
    (place / f"{PATIENT.number}.txt").write_text(PATIENT.name)
    (place / "waltraud_damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + PATIENT.name.encode() * 9)
    return slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID


@pytest.mark.parametrize("packed", [False, True])
def test_series_names_and_reasons_hold_no_identifier(tmp_path: Path, packed: bool) -> None:
    uids = source(tmp_path / "in")
    where = tmp_path / "in"
    if packed:
        where = tmp_path / "in.zip"
        with zipfile.ZipFile(where, "w") as archive:
            for path in (tmp_path / "in").rglob("*.*"):
                archive.write(path, path.relative_to(tmp_path / "in"))
    scan = find_series(where)
    (series,) = scan.series
    assert len(scan.left_out) == 4
    assert_clean(words_of(series) + str(scan.left_out), *uids)
    assert [case.case for case in cases_of(scan)] == ["case_0001"]
    volume = read_series(series)
    assert_clean(str(volume.repairs + volume.problems), *uids)


def test_written_image_holds_no_identifier(tmp_path: Path) -> None:
    uids = source(tmp_path / "in")
    (case,) = dicom_cases(tmp_path / "in")
    case.write_nifti(tmp_path / "case_0001_0000.nii.gz")
    content = gzip.decompress((tmp_path / "case_0001_0000.nii.gz").read_bytes())
    assert_clean(content.decode("latin-1"), *uids)
    image = SimpleITK.ReadImage(str(tmp_path / "case_0001_0000.nii.gz"))
    assert_clean(" ".join(image.GetMetaData(key) for key in image.GetMetaDataKeys()), *uids)
    assert not case.read().image.GetMetaDataKeys()


def two_sizes(slices: list[pydicom.Dataset]) -> None:
    set_pixels(slices[1], np.zeros((12, 12)))


def two_patients(slices: list[pydicom.Dataset]) -> None:
    slices[1].PatientID, slices[1].PatientName = PATIENT.accession, PATIENT.number


def missing(slices: list[pydicom.Dataset]) -> None:
    del slices[2]


def no_place(slices: list[pydicom.Dataset]) -> None:
    del slices[2].ImagePositionPatient


def different(slices: list[pydicom.Dataset]) -> None:
    slices[2].ImagePositionPatient = slices[1].ImagePositionPatient


def odd_values(slices: list[pydicom.Dataset]) -> None:
    """A name where a number belongs: pydicom quotes it in its warning."""
    element = pydicom.dataelem.DataElement(0x00280030, "LO", PATIENT.name)
    for item in slices:
        item[0x00280030] = element


@pytest.mark.parametrize("damage", [two_sizes, two_patients, missing, no_place, different, odd_values])
def test_messages_and_tracebacks_hold_no_identifier(
    tmp_path: Path,
    damage: Callable[[list[pydicom.Dataset]], None],
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    slices = series_datasets(phantom())
    uids = (slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID)
    damage(slices)
    save(slices, tmp_path / PATIENT.name, names=f"{PATIENT.number}_{{}}.dcm")
    recwarn.clear()
    caplog.clear()
    (series,) = find_series(tmp_path).series
    with pytest.raises(ImageError) as error:
        read_series(series)
    assert_clean(str(error.value), *uids)
    assert_clean("".join(str(link) for link in _chain(error.value)), *uids)
    printed = capfd.readouterr()
    assert_clean(printed.out + printed.err + caplog.text + " ".join(str(item.message) for item in recwarn), *uids)


def _chain(error: BaseException | None) -> list[str]:
    """What a traceback prints of the errors, without the paths of the code."""
    found: list[str] = []
    while error is not None:
        found += traceback.format_exception_only(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def test_undecodable_pixels_do_not_show_the_file_name_that_itk_quotes(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", phantom(), syntax="jpeg_ls", names=f"{PATIENT.number}_{{}}.dcm")
    content = bytearray(files[2].read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start : start + 60] = bytes(60)
    files[2].write_bytes(content)
    with pytest.raises(ImageError) as error:
        read_series(find_series(tmp_path / "in").series[0])
    assert_clean("".join(_chain(error.value)))


def test_masks_hold_no_identifier(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", phantom())
    names = (f"Tumour {PATIENT.name.split('^')[0]}", "lesion")
    write_seg(tmp_path / "in" / f"{PATIENT.number}.dcm", files, phantom_labels(), names=names)
    scan = find_series(tmp_path / "in")
    volume = read_series(scan.series[0])
    found = read_masks(scan.masks[0], volume)
    assert_clean(str(list(found.masks)) + str(found.repairs) + words_of(scan.masks[0]))
    assert list(found.masks)[1] == "lesion"


def test_identifiers_are_kept_on_request_alone(tmp_path: Path) -> None:
    files = write_series(tmp_path, phantom())
    kept = kept_identifiers(files[0])
    assert (kept["PatientID"], kept["PatientName"], kept["StudyDate"]) == (
        PATIENT.number,
        PATIENT.name,
        PATIENT.study_date,
    )


def test_dates_are_hidden_however_they_are_written() -> None:
    known = Identifiers()
    (item,) = series_datasets(phantom()[:1])
    known.note(item)
    for written in ("20230717", "2023-07-17", "17.07.2023", "29031951", "29-03-1951"):
        assert_clean(known.hide(f"a/{written}/b"), written)
    assert known.hide("series_3/IM0001.dcm") == "series_3/IM0001.dcm"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Müller^Jörg", "Mueller_Joerg"),
        ("Müller^Jörg", "MULLER jorg"),
        ("Li^Wu", "LI_wu/IM1"),
        ("Yamada^Tarou=山田^太郎", "山田太郎"),
    ],
)
def test_names_are_hidden_however_they_are_written(name: str, written: str) -> None:
    known = Identifiers()
    (item,) = series_datasets(phantom()[:1], patient=Patient(name))
    known.note(item)
    hidden = known.hide(written)
    assert not any(part.lower() in hidden.lower() for part in re.split(r"[_ /]", written) if part != "IM1")
    assert known.hide("slices/liver_1") == "slices/liver_1"  # no part of a word
