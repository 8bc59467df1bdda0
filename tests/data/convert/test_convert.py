"""A conversion: what is written, what bad files cost, what is kept, and that it goes on after a kill."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

import nnunet_3dct
from nnunet_3dct.data.convert import case as case_module
from nnunet_3dct.data.convert.convert import ConversionResult, convert_dataset
from nnunet_3dct.errors import OutputError, SettingsError
from nnunet_3dct.formats.conversion import JOURNAL, file_sha256, read_conversion
from tests.data.convert import makers
from tests.data.convert.makers import SCALED, tree
from tests.data.test_repairs import nifti, sheared
from tests.utils import ct_array, edit_nifti_header, empty, label_array, truncate, unpack, write_volume


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    return makers.challenge(tmp_path / "quiz")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "Dataset001_3DCT"


def hashes(folder: Path) -> dict[str, str]:
    return {name: file_sha256(folder / name) for name in tree(folder)}


def test_dataset_is_sound_by_our_check_and_by_nnunets(
    quiz: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "none"))
    result = convert_dataset(quiz, target)
    assert result.ok and nnunet_3dct.check_dataset(target).problems == []
    verify_dataset_integrity(str(target), 1)
    assert json.loads((target / "dataset.json").read_text()) == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "pancreas": 1, "lesion": 2},
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }


def test_record_has_source_hash_and_repairs_of_every_file(quiz: Path, target: Path) -> None:
    before = hashes(quiz)
    convert_dataset(quiz, target)
    files = read_conversion(target).files()
    assert set(files) == {name for name in tree(target) if name.endswith(".nii.gz")}
    for name, record in files.items():
        assert record.source_sha256 == before[record.source] and record.sha256 == file_sha256(target / name)
        kinds = [repair["kind"] for repair in record.repairs]
        assert kinds == (["values", "integers"] if name.startswith("labels") else [])
    record = files["labelsTr/quiz_0_001.nii.gz"]
    assert record.source == "train/subtype0/quiz_0_001.nii.gz"
    assert record.repairs[0]["count"] == int((label_array() > 0).sum())
    assert hashes(quiz) == before


def spoil(path: Path, how: str) -> None:
    """Spoil an image or a mask as it happens in the field."""
    if how == "truncated":
        truncate(path, 0.6)
    elif how == "empty":
        empty(path)
    elif how == "web page":
        path.write_text("<html>please log in")
    elif how == "flipped byte":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))
    elif how == "NaN":
        array = ct_array().astype(np.float32)
        array[1, 1, 1] = np.nan
        nifti(path, array)
    elif how == "sheared":
        nifti(path, ct_array(), sheared(0.2))
    elif how == "several volumes":
        nifti(path, np.stack([ct_array()] * 2))
    elif how == "other size":
        nifti(path, ct_array((5, 8, 10)))
    elif how == "no voxel size":
        edit_nifti_header(path, pixdim=[0, 0, 0], sform_code=0, qform_code=1)
    elif how == "not readable":
        path.unlink()
        path.symlink_to("gone.nii.gz")


@pytest.mark.parametrize(
    "how",
    ["truncated", "empty", "web page", "flipped byte", "NaN", "sheared", "several volumes", "other size",
     "no voxel size", "not readable"],
)  # fmt: skip
def test_bad_image_costs_its_case_alone(how: str, quiz: Path, target: Path) -> None:
    spoil(quiz / "train/subtype1/quiz_1_003_0000.nii.gz", how)
    result = convert_dataset(quiz, target)
    assert list(result.failed) == ["quiz_1_003"], result.failed
    assert result.num_cases == {"Tr": 5, "Val": 3, "Ts": 2} and not result.ok
    assert not [name for name in tree(target) if "quiz_1_003" in name]
    assert "quiz_1_003" not in json.loads((target / "classification.json").read_text())
    assert json.loads((target / "dataset.json").read_text())["numTraining"] == 5
    assert read_conversion(target).failed == result.failed


@pytest.mark.parametrize("value", [1.5, -1.0, np.nan, 70000.0])
def test_bad_mask_costs_its_case_alone(value: float, quiz: Path, target: Path) -> None:
    labels = label_array().astype(np.float32)
    labels[2, 2, 2] = value
    nifti(quiz / "train/subtype1/quiz_1_003.nii.gz", labels)
    result = convert_dataset(quiz, target)
    assert list(result.failed) == ["quiz_1_003"] and "expected mask values within 0.01" in result.failed["quiz_1_003"]


def test_error_of_a_reader_that_nobody_thought_of_costs_its_case(
    quiz: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_module, "labels_in", lambda path: 1 / 0 if "quiz_1_003" in path.name else [0, 1])
    result = convert_dataset(quiz, target)
    assert result.failed == {"quiz_1_003": "cannot be read: unexpected ZeroDivisionError: division by zero"}
    assert not [name for name in tree(target) if "quiz_1_003" in name]


def test_full_disk_ends_the_run_and_what_is_finished_is_kept(
    quiz: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = case_module.write_content, []

    def fill(content: object, path: Path) -> str:
        if len(written) == 3:
            raise OutputError(f"{path} cannot be written: no space left on device.")
        written.append(path)
        return write(content, path)  # type: ignore[arg-type]

    monkeypatch.setattr(case_module, "write_content", fill)
    with pytest.raises(OutputError, match="no space left"):
        convert_dataset(quiz, target)
    assert not (target / "dataset.json").exists()
    monkeypatch.undo()
    result = convert_dataset(quiz, target)
    assert result.ok and result.num_kept == 5  # the two test cases come first and have no mask to write
    assert not (target / JOURNAL).exists()


@pytest.mark.skipif(os.name != "posix", reason="kill")
def test_run_that_was_killed_goes_on(quiz: Path, target: Path) -> None:
    for n in range(40):
        for ending in ("_0000.nii.gz", ".nii.gz"):
            name = f"quiz_0_001{ending}"
            shutil.copy(quiz / "train/subtype0" / name, quiz / "train/subtype0" / name.replace("001", f"1{n:02d}"))
    process = subprocess.Popen(
        [sys.executable, "-m", "nnunet_3dct.cli.convert", "-i", str(quiz), "-o", str(target), "-np", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 120
    while len(list(target.glob("labelsTr/*.nii.gz"))) < 4:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its workers end by themselves
    (target / "labelsTr" / ".half.nii.gz.abc.tmp").write_bytes(b"half")
    result = convert_dataset(quiz, target)
    assert result.ok and 0 < result.num_kept < 51
    assert result.num_cases == {"Tr": 46, "Val": 3, "Ts": 2}
    assert not [name for name in tree(target) if "/." in name or name.startswith(".")]
    fresh = convert_dataset(quiz, target.with_name("Dataset002_Fresh"))
    assert hashes(target).items() - hashes(fresh.folder).items() == set()


def test_processes_make_no_difference(quiz: Path, target: Path) -> None:
    calls: list[tuple[int, int]] = []
    convert_dataset(quiz, target, num_processes=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n, 11) for n in range(1, 12)]
    other = convert_dataset(quiz, target.with_name("Dataset002_One")).folder
    assert hashes(target) == hashes(other)


def test_second_run_keeps_everything_and_takes_up_what_was_put_right(quiz: Path, target: Path) -> None:
    image = quiz / "train/subtype1/quiz_1_003_0000.nii.gz"
    sound = image.read_bytes()
    truncate(image, 0.5)
    assert not convert_dataset(quiz, target).ok
    image.write_bytes(sound)
    before = {path: path.stat().st_mtime_ns for path in target.glob("*/*.nii.gz")}
    result = convert_dataset(quiz, target)
    assert result.ok and result.num_kept == 10
    assert {path: path.stat().st_mtime_ns for path in before} == before


def changed(target: Path, name: str) -> ConversionResult:
    nifti(target / name, ct_array(seed=77))
    return convert_dataset(target.parent / "quiz", target)


def test_nothing_is_overwritten_without_being_asked(quiz: Path, target: Path) -> None:
    convert_dataset(quiz, target)
    result = changed(target, "imagesTr/quiz_0_001_0000.nii.gz")
    assert "has been changed since it was written" in result.failed["quiz_0_001"]
    assert (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(target / "imagesTr/quiz_0_001_0000.nii.gz")))
            == ct_array(seed=77)).all()  # fmt: skip
    nifti(quiz / "train/subtype0/quiz_0_002_0000.nii.gz", ct_array(seed=78))
    result = convert_dataset(quiz, target)
    assert "quiz_0_002_0000.nii.gz has changed since it was converted" in result.failed["quiz_0_002"]
    (target / "dataset.json").write_text('{"mine": 1}')
    result = convert_dataset(quiz, target)
    assert result.problems == [
        "dataset.json: has been changed since it was written, and is left as it is. Delete it and convert again to "
        "have it written anew."
    ]
    assert json.loads((target / "dataset.json").read_text()) == {"mine": 1}
    assert convert_dataset(quiz, target, overwrite=True).ok


def test_foreign_file_in_the_way_is_left(quiz: Path, target: Path) -> None:
    convert_dataset(quiz, target)
    makers.pair(quiz / "train/subtype0/new_0000.nii.gz", quiz / "train/subtype0/new.nii.gz", 5)
    write_volume(target / "labelsTr" / "new.nii.gz", label_array())
    before = file_sha256(target / "labelsTr" / "new.nii.gz")
    assert "expected no such file in the dataset" in convert_dataset(quiz, target).failed["new"]
    assert file_sha256(target / "labelsTr" / "new.nii.gz") == before


@pytest.mark.parametrize("content", ["files", "other dataset", "other source"])
def test_folder_that_holds_something_else_is_refused(content: str, quiz: Path, target: Path, tmp_path: Path) -> None:
    target.mkdir()
    if content == "files":
        (target / "thesis.docx").touch()
    elif content == "other dataset":
        (target / "dataset.json").write_text("{}")
    else:
        convert_dataset(makers.hospital(tmp_path / "clinic"), target)
    with pytest.raises(SettingsError, match=r"expected an empty folder|holds a conversion of"):
        convert_dataset(quiz, target)
    if content == "files":
        with pytest.raises(SettingsError, match="Empty the folder yourself"):
            convert_dataset(quiz, target, overwrite=True)
        assert (target / "thesis.docx").exists()
    else:
        assert convert_dataset(quiz, target, overwrite=True).ok
        assert not [name for name in tree(target) if "scan" in name]


def test_cases_that_left_the_source_are_named(quiz: Path, target: Path) -> None:
    convert_dataset(quiz, target)
    for path in (quiz / "test").glob("quiz_030*"):
        path.unlink()
    (problem,) = convert_dataset(quiz, target).problems
    assert problem.startswith("quiz_030: in the dataset from an earlier run, but no longer in the source")


@pytest.mark.parametrize("transfer", ["copy", "hardlink", "symlink"])
def test_files_without_repairs_are_copied_or_linked(transfer: str, quiz: Path, target: Path) -> None:
    convert_dataset(quiz, target, transfer=transfer)
    source, image = quiz / "test/quiz_030_0000.nii.gz", target / "imagesTs/quiz_030_0000.nii.gz"
    assert image.is_symlink() == (transfer == "symlink") and image.samefile(source) == (transfer != "copy")
    assert not (target / "labelsTr/quiz_0_001.nii.gz").is_symlink()
    how = {"copy": "copied", "hardlink": "hard link", "symlink": "symlink"}[transfer]
    assert read_conversion(target).files()["imagesTs/quiz_030_0000.nii.gz"].how == how
    assert convert_dataset(quiz, target, transfer=transfer).num_kept == 11


def test_places_that_would_mix_source_and_dataset_are_refused(quiz: Path) -> None:
    for folder in (quiz, quiz / "Dataset001_In"):
        with pytest.raises(SettingsError, match=r"expected (another folder than|a folder outside) the source"):
            convert_dataset(quiz, folder)
    with pytest.raises(SettingsError, match="transfer"):
        convert_dataset(quiz, quiz.parent / "x", transfer="move")


def test_other_formats_are_written_as_nifti(tmp_path: Path, target: Path) -> None:
    for name, ending in (("a", ".nii"), ("b", ".mha"), ("c", ".nrrd"), ("d", ".nii.gz")):
        write_volume(tmp_path / "s/images" / f"{name}{ending}", ct_array(seed=ord(name)), (0.7, 0.7, 2), (-3, 4, 5))
        write_volume(tmp_path / "s/masks" / f"{name}{ending}", label_array() * SCALED, (0.7, 0.7, 2), (-3, 4, 5))
    unpack(tmp_path / "s/images/d.nii.gz")
    result = convert_dataset(tmp_path / "s", target)
    assert result.ok
    for name in "abcd":
        for part, expected in (("images", ct_array(seed=ord(name))), ("labels", label_array())):
            path = target / f"{part}Tr" / f"{name}{'_0000' * (part == 'images')}.nii.gz"
            image = SimpleITK.ReadImage(str(path))
            assert np.array_equal(SimpleITK.GetArrayFromImage(image), expected)
            assert np.allclose(image.GetOrigin(), (-3, 4, 5)) and path.read_bytes()[:2] == b"\x1f\x8b"


def test_masks_of_0_and_255_are_mapped_when_asked_for(tmp_path: Path, target: Path) -> None:
    for name in ("a", "b"):
        write_volume(tmp_path / "s/images" / f"{name}.nii.gz", ct_array())
        write_volume(tmp_path / "s/masks" / f"{name}.nii.gz", ((label_array() > 0) * 255).astype(np.uint8))
    (problem,) = convert_dataset(tmp_path / "s", target).problems
    assert "found 0, 255. Map them, such as 255 to 1." in problem
    with pytest.raises(SettingsError, match="holds a conversion"):
        convert_dataset(tmp_path / "s", target, label_map={255: 1})
    result = convert_dataset(tmp_path / "s", target, label_map={255: 1}, overwrite=True)
    assert result.ok and json.loads((target / "dataset.json").read_text())["labels"] == {"background": 0, "label_1": 1}
    assert result.repairs["labelsTr/a.nii.gz"][0]["found"] == "255 -> 1"


def test_hash_of_the_source_is_that_of_its_file_not_of_its_content(quiz: Path, target: Path) -> None:
    convert_dataset(quiz, target)
    source = quiz / "train/subtype0/quiz_0_001.nii.gz"
    source.write_bytes(gzip.compress(gzip.decompress(source.read_bytes()), 1, mtime=5))
    assert "has changed" in convert_dataset(quiz, target).failed["quiz_0_001"]
