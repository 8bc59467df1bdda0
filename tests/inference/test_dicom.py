"""Prediction of DICOM series: the same answer as from NIfTI, results as DICOM, nobody's name anywhere else."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from nnunet_3dct import ImageError, Predictor, SettingsError
from nnunet_3dct.dicom.cases import dicom_cases
from nnunet_3dct.formats.dicom_files import SUFFIXES
from nnunet_3dct.formats.measurement_files import TABLE, measurement_path, read_measurements
from tests import toy
from tests.dicom import makers
from tests.inference.predicting import reports, run

PATIENT = makers.Patient()
ALL = ("--dicom_seg", "--dicom_sr", "--rtstruct")
FAST = ("--disable_tta",)


def write_toy_series(folder: Path, n: int, **how: object) -> list[Path]:
    return makers.write_series(folder, toy.toy_volume(100 + n)[0], spacing=(1.0, 1.0, 1.0), **how)  # type: ignore[arg-type]


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder with one series, of which the slices are numbered from the other end."""
    write_toy_series(tmp_path / "dicom", 0, descending=True)
    return tmp_path / "dicom"


@pytest.fixture
def predicted(series: Path, model: Path, tmp_path: Path) -> Path:
    run(series, tmp_path / "out", *FAST, *ALL)
    return tmp_path / "out"


def test_series_gives_the_answer_of_its_nifti_file(series: Path, model: Path, tmp_path: Path) -> None:
    (case,) = dicom_cases(series)
    (tmp_path / "images").mkdir()
    case.write_nifti(tmp_path / "images" / "case_0001_0000.nii.gz")
    run(tmp_path / "images", tmp_path / "from_nifti", *FAST)
    run(series, tmp_path / "from_dicom", *FAST)
    expected, found = (
        SimpleITK.ReadImage(str(tmp_path / f / "case_0001.nii.gz")) for f in ("from_nifti", "from_dicom")
    )
    assert (SimpleITK.GetArrayFromImage(expected) == SimpleITK.GetArrayFromImage(found)).all()
    assert expected.GetOrigin() == found.GetOrigin() and expected.GetDirection() == found.GetDirection()
    theirs, ours = reports(tmp_path / "from_nifti")["case_0001"], reports(tmp_path / "from_dicom")["case_0001"]
    assert len(ours.pop("series")) == 12
    assert ours == theirs
    for name in ("subtype_probabilities.csv", TABLE):
        assert (tmp_path / "from_nifti" / name).read_text() == (tmp_path / "from_dicom" / name).read_text()
    measured = read_measurements(measurement_path(tmp_path / "from_dicom", "case_0001"))
    assert all(structure["mean"] for structure in measured["structures"].values())


def test_results_lie_beside_the_segmentation_and_refer_to_the_series(predicted: Path, series: Path) -> None:
    source = [pydicom.dcmread(path) for path in sorted(series.iterdir())]
    labels = SimpleITK.ReadImage(str(predicted / "case_0001.nii.gz"))
    for suffix in SUFFIXES.values():
        result = pydicom.dcmread(predicted / f"case_0001{suffix}")
        assert str(result.PatientName) == PATIENT.name and result.PatientID == PATIENT.number
        assert result.StudyInstanceUID == source[0].StudyInstanceUID
        assert result.SeriesInstanceUID != source[0].SeriesInstanceUID
        assert result.SeriesDescription.startswith("Research use")
        mentioned = str(result)
        assert source[0].SeriesInstanceUID in mentioned
    seg = pydicom.dcmread(predicted / "case_0001_seg.dcm")
    voxels = np.count_nonzero(SimpleITK.GetArrayViewFromImage(labels))
    assert np.count_nonzero(seg.pixel_array) == voxels
    assert not [path for path in predicted.iterdir() if path.name.startswith(".")]


def test_report_names_model_class_and_probabilities(predicted: Path) -> None:
    content = reports(predicted)["case_0001"]
    report = pydicom.dcmread(predicted / "case_0001_sr.dcm")
    text = report.to_json()
    for needed in ("Research use only", toy.FINE_TUNING, content["produced_by"]["model"], *toy.CLASS_NAMES):
        assert needed in text
    for probability in content["probs"]:
        assert f"{probability:.6g}"[:6] in text
    measured = read_measurements(measurement_path(predicted, "case_0001"))["structures"]
    labels = json.loads((predicted / "dataset.json").read_text())["labels"]
    found = {name: measured[name] for name in labels if name in measured and measured[name]["voxels"]}
    assert found
    for structure in found.values():
        assert structure["longest_diameter"] is not None
        for number in (structure["longest_diameter"]["mm"], structure["mean"]["CT"], structure["sd"]["CT"]):
            assert f"{number:.6g}"[:5] in text


def test_nothing_but_the_dicom_results_names_the_patient(
    series: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    named = tmp_path / PATIENT.number / "Findmichnicht"
    shutil.copytree(series, named)
    (named / f"{PATIENT.accession}.dcm").write_bytes(b"\0" * 128 + b"DICM broken")
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in sorted(series.iterdir())]
    uids += [pydicom.dcmread(next(series.iterdir())).get(k) for k in ("SeriesInstanceUID", "StudyInstanceUID")]
    with pytest.raises(SystemExit):
        run(named, tmp_path / "out", *FAST, *ALL, "--verbose")
    shown = capfd.readouterr()
    texts = [shown.out, shown.err] + [
        path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.suffix in (".json", ".csv")
    ]
    for secret in (*PATIENT.secrets, *uids):
        assert not [text for text in texts if secret.lower() in text.lower()], secret
    raw = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.nii.gz"))
    assert PATIENT.number.encode() not in raw


def test_zip_of_a_series_and_tree_of_series(series: Path, model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        for path in series.iterdir():
            archive.write(path, f"study/{path.name}")
    run(tmp_path / "one.zip", tmp_path / "zip", *FAST, *ALL)
    tree = tmp_path / "tree"
    write_toy_series(tree / "scan_1", 1)
    write_toy_series(tree / "scan_2", 2)
    first = pydicom.dcmread(next((tree / "scan_1").iterdir()))
    makers.save([makers.localizer(first)], tree / "scan_1", names="LOC{:04d}.dcm")
    run(tree, tmp_path / "many", *FAST, "--dicom_seg")
    assert {p.name for p in (tmp_path / "zip").glob("*.dcm")} == {f"case_0001{s}" for s in SUFFIXES.values()}
    assert sorted(reports(tmp_path / "many")) == ["scan_1", "scan_2"]
    manifest = json.loads((tmp_path / "many" / "prediction_manifest.json").read_text())
    assert list(manifest["set_aside"].values()) == ["a localizer"] and not manifest["left_out"]


def test_nothing_found_leaves_a_report_alone(series: Path, model: Path, tmp_path: Path) -> None:
    for path in series.iterdir():
        path.unlink()
    makers.write_series(series, np.full(toy.SHAPE, -1000, np.int16), spacing=(1.0, 1.0, 1.0))
    _silence_labels(model)
    run(series, tmp_path / "out", *FAST, *ALL)
    assert sorted(p.name for p in (tmp_path / "out").glob("*.dcm")) == ["case_0001_sr.dcm"]
    content = reports(tmp_path / "out")["case_0001"]
    assert content["without_dicom"] == ["segmentation", "structures"]
    text = pydicom.dcmread(tmp_path / "out" / "case_0001_sr.dcm").to_json()
    assert text.count("Not found: no voxel was given this label") == 2
    times = (tmp_path / "out" / "case_0001_sr.dcm").stat().st_mtime_ns
    run(series, tmp_path / "out", *FAST, *ALL, "--continue_prediction")
    assert (tmp_path / "out" / "case_0001_sr.dcm").stat().st_mtime_ns == times


def _silence_labels(model: Path) -> None:
    """The network sees background everywhere."""
    import torch

    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    for name, value in checkpoint["network_weights"].items():
        if "seg_layers" in name:
            value.zero_()
            if name.endswith("bias"):
                value[0] = 100
    torch.save(checkpoint, path)


def test_continued_prediction_notices_missing_results_and_another_series(
    series: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(series, out, *FAST, "--dicom_seg")
    run(series, out, *FAST, *ALL, "--continue_prediction")
    assert (out / "case_0001_rtstruct.dcm").is_file()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.dcm")}
    run(series, out, *FAST, *ALL, "--continue_prediction")
    assert before == {path.name: path.stat().st_mtime_ns for path in out.glob("*.dcm")}
    (out / "case_0001_sr.dcm").write_bytes((out / "case_0001_sr.dcm").read_bytes()[:900])
    run(series, out, *FAST, *ALL, "--continue_prediction")
    assert (out / "case_0001_sr.dcm").stat().st_size > 900
    key = reports(out)["case_0001"]["series"]
    shutil.rmtree(series)
    write_toy_series(series, 1)
    run(series, out, *FAST, *ALL, "--continue_prediction")
    assert reports(out)["case_0001"]["series"] != key
    assert pydicom.dcmread(next(series.iterdir())).SeriesInstanceUID in str(pydicom.dcmread(out / "case_0001_seg.dcm"))


def test_prediction_without_the_flags_removes_older_results(predicted: Path, series: Path) -> None:
    run(series, predicted, *FAST)
    assert not list(predicted.glob("*.dcm"))


def test_dicom_results_of_other_images_are_refused(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(images, tmp_path / "out", "--dicom_sr")
    assert stopped.value.code == 2
    assert "--dicom_sr: expected DICOM images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wrong_codes_are_refused_before_any_case(series: Path, model: Path, tmp_path: Path) -> None:
    description = json.loads((model / "dataset.json").read_text())
    description["label_codes"] = {"organ": {"code": "15776009"}}
    (model / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(SettingsError, match="label_codes, organ: expected the keys code, scheme and meaning"):
        Predictor(model, device="cpu", backend="torch").predict_folder(series, tmp_path / "out", dicom_seg=True)


def test_code_of_dataset_json_is_written(series: Path, model: Path, tmp_path: Path) -> None:
    description = json.loads((model / "dataset.json").read_text())
    description["label_codes"] = {"organ": {"code": "15776009", "scheme": "SCT", "meaning": "Pancreas"}}
    (model / "dataset.json").write_text(json.dumps(description))
    run(series, tmp_path / "out", *FAST, "--dicom_seg")
    items = pydicom.dcmread(tmp_path / "out" / "case_0001_seg.dcm").SegmentSequence
    kinds = {item.SegmentLabel: item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for item in items}
    assert kinds["organ"] == "Pancreas"


def test_predictor_takes_a_series(series: Path, model: Path, tmp_path: Path) -> None:
    predictor = Predictor(model, device="cpu", backend="torch", tta="none")
    (case,) = dicom_cases(series)
    case.write_nifti(tmp_path / "image.nii.gz")
    ours, theirs = predictor(series), predictor(tmp_path / "image.nii.gz")
    assert (ours.segmentation == theirs.segmentation).all() and ours.probs == theirs.probs
    assert ours.geometry == theirs.geometry
    write_toy_series(series.parent / "dicom" / "more", 1)
    with pytest.raises(ImageError, match="expected one series of images, found 2"):
        predictor(series)


def test_damaged_slice_costs_its_series_alone(series: Path, model: Path, tmp_path: Path) -> None:
    files = write_toy_series(series / "scan_2", 1)
    files[5].write_bytes(files[5].read_bytes()[:700])
    with pytest.raises(SystemExit) as stopped:
        run(series, tmp_path / "out", *FAST, *ALL)
    assert stopped.value.code == 1
    manifest = json.loads((tmp_path / "out" / "prediction_manifest.json").read_text())
    (reason,) = manifest["failed"].values()
    assert "missing" in reason
    assert len(reports(tmp_path / "out")) == 1 and len(list((tmp_path / "out").glob("*.dcm"))) == 3


def test_headers_that_cannot_be_used_fail_the_case_and_leave_nothing(
    series: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import highdicom

    def refuse(*_: object, **__: object) -> None:
        raise ValueError(f"value of {PATIENT.name}")

    monkeypatch.setattr(highdicom.seg, "Segmentation", refuse)
    with pytest.raises(SystemExit):
        run(series, tmp_path / "out", *FAST, *ALL, "--verbose")
    manifest = (tmp_path / "out" / "prediction_manifest.json").read_text()
    assert "highdicom refuses the series (ValueError)" in manifest and "Findmichnicht" not in manifest
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".json"}
