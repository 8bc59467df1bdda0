"""DICOM trees become datasets, and nothing that names a patient gets out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.cli.convert import main
from nnunet_3dct.data.convert.convert import ConversionResult, convert_dataset
from nnunet_3dct.dicom.series import find_series
from nnunet_3dct.dicom.volume import read_series
from nnunet_3dct.formats.class_labels import read_labels_in
from nnunet_3dct.formats.conversion import read_conversion
from tests.data.convert import makers
from tests.data.convert.makers import tree
from tests.dicom.makers import Patient, phantom, phantom_labels, write_series
from tests.dicom.test_references import write_seg
from tests.utils import truncate

SECRETS = ("nobody", "erika", "4711", "19510329", "20230717", "ACC99887766", "1.2.826")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return makers.dicom(tmp_path / "export")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "Dataset001_Export"


def convert(export: Path, target: Path, **how: object) -> ConversionResult:
    return convert_dataset(export, target, labels=export / "classes.csv", **how)  # type: ignore[arg-type]


def voxels(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def test_image_and_mask_of_each_series(export: Path, target: Path) -> None:
    result = convert(export, target)
    assert result.ok and result.num_cases == {"Tr": 3, "Val": 0, "Ts": 0}
    assert json.loads((target / "dataset.json").read_text())["labels"] == {"background": 0, "organ": 1, "lesion": 2}
    expected = [read_series(series).image for series in find_series(export).series]
    for n, image in enumerate(expected, start=1):
        found = SimpleITK.ReadImage(str(target / f"imagesTr/case_{n:04d}_0000.nii.gz"))
        assert np.array_equal(SimpleITK.GetArrayFromImage(found), SimpleITK.GetArrayFromImage(image))
        assert np.allclose(found.GetOrigin(), image.GetOrigin()) and np.allclose(found.GetSpacing(), image.GetSpacing())
    straight = [n for n in range(1, 4) if voxels(target / f"imagesTr/case_{n:04d}_0000.nii.gz").shape == (6, 9, 11)]
    for n in straight:
        assert np.array_equal(voxels(target / f"labelsTr/case_{n:04d}.nii.gz"), phantom_labels())
    assert len(straight) >= 2


def test_classes_are_found_by_the_patients_number(export: Path, target: Path) -> None:
    convert(export, target)
    labels = read_labels_in([target])
    keys = {series.patient_key: n for n, series in enumerate(find_series(export).series, start=1)}
    for n in range(3):
        (series,) = find_series(export / f"NOBODY{n}_ERIKA" / "CT").series
        assert labels.by_case[f"case_{keys[series.patient_key]:04d}"] == n % 2
    assert labels.groups == {f"case_{n:04d}": f"patient_{n:04d}" for n in range(1, 4)}


def test_no_identifier_is_in_the_dataset_or_on_the_terminal(
    export: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (export / "classes.csv").open("a") as stream:
        stream.write("KH-4711-99;solid\nKH-4711-0;solid\n../4711;solid\n")
    truncate(export / "NOBODY2_ERIKA/CT/IM0003.dcm", 0.9)
    shutil.rmtree(export / "NOBODY1_ERIKA/CT")
    arguments = ["-i", str(export), "-o", str(target), "--labels", "classes.csv", "--verbose", "-np", "1"]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr()
    assert stop.value.code == 1
    written = "".join(
        path.name + path.read_bytes().decode("latin-1")
        for path in map(target.joinpath, tree(target))
        if path.suffix != ".gz"
    )
    for secret in SECRETS:
        assert secret.lower() not in (printed.out + printed.err + written).lower(), secret
    assert "left out" in printed.out and "failed: case_0" in printed.out


def test_identifiers_are_kept_on_request(export: Path, target: Path) -> None:
    result = convert(export, target, keep_ids=True)
    assert result.ok and "imagesTr/KH-4711-0_0000.nii.gz" in tree(target)
    record = read_conversion(target).cases["KH-4711-0"]
    assert record.identifiers["PatientName"] == "Nobody0^Erika"
    assert record.files["imagesTr/KH-4711-0_0000.nii.gz"].source == "NOBODY0_ERIKA/CT"
    assert read_labels_in([target]).groups["KH-4711-0"] == "KH-4711-0"


def test_number_that_leads_out_of_the_folder_names_no_case(tmp_path: Path, target: Path) -> None:
    for n, number in enumerate(("../../evil", "good-1")):
        files = write_series(tmp_path / f"e/{n}/x", phantom(), patient=Patient(number=number))
        write_seg(tmp_path / f"e/{n}/seg.dcm", files, phantom_labels())
    result = convert_dataset(tmp_path / "e", target, keep_ids=True)
    assert list(read_conversion(target).cases) == ["good-1"] and len(result.left_out) == 1
    assert not list(tmp_path.rglob("*evil*"))


def test_missing_slice_costs_its_series(export: Path, target: Path) -> None:
    (export / "NOBODY0_ERIKA/CT/IM0003.dcm").unlink()
    result = convert(export, target)
    (reason,) = result.failed.values()
    assert "1 between instances 2 and 4" in reason and result.num_cases["Tr"] == 2


def test_series_keeps_its_name_when_others_come(export: Path, target: Path) -> None:
    shutil.move(str(export / "NOBODY0_ERIKA"), str(export.parent / "later"))
    shutil.move(str(export / "NOBODY1_ERIKA"), str(export.parent / "later1"))
    convert(export, target)
    first = read_conversion(target).files()["imagesTr/case_0001_0000.nii.gz"]
    shutil.move(str(export.parent / "later"), str(export / "NOBODY0_ERIKA"))
    shutil.move(str(export.parent / "later1"), str(export / "NOBODY1_ERIKA"))
    result = convert(export, target)
    assert result.ok and result.num_kept == 1 and result.num_cases["Tr"] == 3
    assert read_conversion(target).files()["imagesTr/case_0001_0000.nii.gz"] == first


def test_series_without_masks_go_to_the_test_images(export: Path, target: Path) -> None:
    for seg in export.glob("*/seg.dcm"):
        seg.unlink()
    result = convert(export, target)
    assert result.ok and result.num_cases == {"Tr": 0, "Val": 0, "Ts": 3}
    assert "all go to imagesTs" in " ".join(result.notes)


def test_one_series_without_a_mask_is_named(export: Path, target: Path) -> None:
    (export / "NOBODY0_ERIKA/seg.dcm").unlink()
    result = convert(export, target)
    ((name, reason),) = result.left_out.items()
    assert name.startswith("series ") and "has no mask; expected a DICOM-SEG or RTSTRUCT" in reason


def test_masks_as_nifti(export: Path, target: Path, tmp_path: Path) -> None:
    convert(export, target)
    for seg in export.glob("*/seg.dcm"):
        seg.unlink()
    shutil.copytree(target / "labelsTr", tmp_path / "masks")
    other = convert(
        export, tmp_path / "Dataset002_Nifti", masks=str(tmp_path / "masks"), label_names=["organ", "lesion"]
    )
    assert other.ok
    for n in range(1, 4):
        name = f"labelsTr/case_{n:04d}.nii.gz"
        assert np.array_equal(voxels(target / name), voxels(other.folder / name))
    assert "mask " in read_conversion(other.folder).files()["labelsTr/case_0001.nii.gz"].source


def test_structures_are_chosen_by_name(export: Path, target: Path) -> None:
    result = convert(export, target, label_names=["lesion"])
    assert json.loads((target / "dataset.json").read_text())["labels"] == {"background": 0, "lesion": 1}
    assert set(np.unique(voxels(target / "labelsTr/case_0002.nii.gz"))) == {0, 1}
    assert any("structures without a label are left out: organ" in note for note in result.notes)
    other = convert(export, target.with_name("Dataset002_X"), label_names=["kidney"])
    assert len(other.failed) == 3 and "expected one of the structures kidney, found organ, lesion" in str(other.failed)


def test_zip_archive_and_processes(export: Path, target: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "export"), "zip", export)
    result = convert_dataset(archive, target, labels=export / "classes.csv", num_processes=2)
    assert result.ok and result.num_cases["Tr"] == 3
