"""Datasets as they come from the field: each fault is named by the check, each unusual but sound one passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunet_3dct.cli import check as command
from nnunet_3dct.data.checks.dataset import DatasetCheck, check_dataset
from tests.utils import (
    ct_array,
    edit_nifti_header,
    label_array,
    scale_labels,
    tilt,
    unpack,
    write_raw_dataset,
    write_volume,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_raw_dataset(tmp_path / "Dataset001_Test", classes=(0, 1, 0, 1, 0), validation=2)


def edit_json(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def files_of(folder: Path, case: str, part: str = "Tr") -> list[Path]:
    return [folder / f"images{part}" / f"{case}_0000.nii.gz", folder / f"labels{part}" / f"{case}.nii.gz"]


def only(result: DatasetCheck) -> str:
    assert len(result.problems) == 1, result.problems
    return result.problems[0]


def test_result_counts_cases_and_is_typed(folder: Path) -> None:
    result = check_dataset(folder)
    assert result.ok and (result.num_training, result.num_held_out, result.num_cases) == (5, 2, 7)
    assert result.folder == folder and result.notes == []


class TestTwins:
    @pytest.mark.parametrize("name", ["imagesTr/case_001_0000", "imagesVal/case_005_0000"])
    @pytest.mark.parametrize("ending", [".nii", ".mha"])
    def test_of_images_are_refused(self, folder: Path, name: str, ending: str) -> None:
        write_volume(folder / f"{name}{ending}", ct_array(seed=9))
        problems = check_dataset(folder).problems
        assert f"{Path(name).name}{ending}" in problems[0] and "two endings" in problems[0]

    def test_of_images_and_labels_are_named_at_once(self, folder: Path) -> None:
        for path in files_of(folder, "case_005", "Val"):
            write_volume(path.with_suffix(""), ct_array(seed=9))
        problems = check_dataset(folder).problems
        assert len(problems) == 2
        assert "case_005_0000.nii and" in problems[0] and "case_005.nii and" in problems[1]

    def test_of_files_listed_in_dataset_json_are_refused(self, folder: Path) -> None:
        listed = {f"case_00{n}": [str(path) for path in files_of(folder, f"case_00{n}")] for n in range(5)}
        edit_json(
            folder, dataset={case: {"images": [image], "label": label} for case, (image, label) in listed.items()}
        )
        assert check_dataset(folder).ok
        write_volume(folder / "labelsTr" / "case_002.nii", label_array())
        assert "found case_002.nii beside it" in only(check_dataset(folder))


class TestChannelNumbers:
    def test_gap_is_named_with_its_case(self, folder: Path) -> None:
        shutil.copy(folder / "imagesTr" / "case_001_0000.nii.gz", folder / "imagesTr" / "case_001_0002.nii.gz")
        problems = check_dataset(folder).problems
        assert "imagesTr: case_001: expected channel numbers from 0000 without a gap, found 0000, 0002" in problems[0]

    def test_number_that_belongs_to_the_case_is_explained(self, folder: Path) -> None:
        write_volume(folder / "imagesTs" / "scan_0042.nii.gz", ct_array())
        assert "imagesTs: scan: " in only(check_dataset(folder))
        assert "add _0000 to it" in only(check_dataset(folder))


@pytest.mark.parametrize("name", ["case_009_0000.mha", "case_009_0000.NII.GZ", "case_009_0000.nii"])
@pytest.mark.parametrize("part", ["Tr", "Val"])
def test_image_of_another_format_is_named(folder: Path, part: str, name: str) -> None:
    (folder / f"images{part}" / name).write_bytes(b"x")
    assert f"images{part}: {name}: expected the ending .nii.gz" in only(check_dataset(folder))


def test_label_of_another_format_is_named(folder: Path) -> None:
    write_volume(folder / "labelsTr" / "case_009.mha", label_array())
    assert "labelsTr: case_009.mha: expected the ending .nii.gz" in only(check_dataset(folder))


def test_hidden_files_are_one_line_and_no_cases(folder: Path) -> None:
    for path in [*folder.glob("images*/*"), *folder.glob("labels*/*")]:
        (path.parent / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    (folder / "imagesTr" / ".DS_Store").write_bytes(b"x")
    result = check_dataset(folder)
    assert result.num_cases == 7
    assert "14 hidden files end with .nii.gz: imagesTr/._case_000_0000.nii.gz" in only(result)
    for path in folder.glob("*/._*"):
        path.unlink()
    assert check_dataset(folder).ok


def test_case_in_two_folders_is_named(folder: Path) -> None:
    for part in ("Val", "Ts"):
        for old, new in zip(files_of(folder, "case_001"), files_of(folder, "case_001", part), strict=True):
            new.parent.mkdir(exist_ok=True)
            shutil.copy(old, new)
    problems = check_dataset(folder).problems
    pairs = ("imagesTr and imagesVal", "imagesTr and imagesTs", "imagesVal and imagesTs")
    assert [problem.split(":")[0] for problem in problems] == list(pairs)
    assert all("case_001" in problem for problem in problems)


class TestReader:
    def tilted(self, folder: Path) -> Path:
        for path in [*files_of(folder, "case_002"), *files_of(folder, "case_005", "Val")]:
            tilt(path)
        return folder

    def test_itk_refuses_sheared_axes_with_what_helps(self, folder: Path) -> None:
        problems = check_dataset(self.tilted(folder)).problems
        assert len(problems) == 4
        assert all(
            "sheared" in problem and '"overwrite_image_reader_writer": "NibabelIO"' in problem for problem in problems
        )

    @pytest.mark.parametrize("reader", ["NibabelIO", "NibabelIOWithReorient"])
    def test_that_dataset_json_names_decides(self, folder: Path, reader: str) -> None:
        edit_json(self.tilted(folder), overwrite_image_reader_writer=reader)
        assert check_dataset(folder).problems == []

    def test_that_nnunet_would_pick_for_the_first_image_decides(self, folder: Path) -> None:
        for path in files_of(folder, "case_000"):
            tilt(path)
        assert check_dataset(self.tilted(folder)).problems == []

    def test_that_nnunet_does_not_have_is_named(self, folder: Path) -> None:
        edit_json(folder, overwrite_image_reader_writer="NiftiIO")
        assert "overwrite_image_reader_writer: expected a reader of nnU-Net" in only(check_dataset(folder))


class TestVoxelSize:
    @pytest.mark.parametrize("header", [{"xyzt_units": 1}, {"xyzt_units": 3}, {"pixdim": (0, 1, 1)}])
    def test_that_cannot_be_is_named_by_case(self, folder: Path, header: dict) -> None:
        for path in [*files_of(folder, "case_001"), *files_of(folder, "case_005", "Val")]:
            edit_nifti_header(path, **header)
        problems = check_dataset(folder).problems
        assert [problem.split(":")[0] for problem in problems] == ["case_001", "case_005"]

    def test_with_which_planning_would_need_terabytes_is_named(self, tmp_path: Path) -> None:
        folder = write_raw_dataset(tmp_path)
        for n in range(4):
            spacing = (49, 49, 49) if n == 3 else (0.05, 0.05, 0.05)
            for path, array in zip(files_of(folder, f"case_00{n}"), (ct_array(), label_array()), strict=True):
                write_volume(path, array, spacing)
        problem = only(check_dataset(folder))
        assert problem.startswith(
            "case_003: (10, 8, 6) voxels of (49, 49, 49) mm would be resampled to (9800, 7840, 5880)"
        )


@pytest.mark.parametrize("value", [0, -1024])
@pytest.mark.parametrize(("part", "case"), [("Tr", "case_001"), ("Val", "case_005")])
def test_image_without_content_is_named(folder: Path, part: str, case: str, value: int) -> None:
    write_volume(files_of(folder, case, part)[0], np.full((6, 8, 10), value, np.int16))
    assert f"{case} ({case}_0000.nii.gz): expected an image, found one and the same value" in only(
        check_dataset(folder)
    )


def test_plain_nifti_with_a_compressed_name_is_a_note(folder: Path) -> None:
    for path in files_of(folder, "case_001"):
        unpack(path)
    result = check_dataset(folder)
    assert result.ok and len(result.notes) == 1
    assert "2 files named .nii.gz are not compressed: case_001_0000.nii.gz, case_001.nii.gz" in result.notes[0]
    edit_json(folder, overwrite_image_reader_writer="NibabelIO")
    assert all("not compressed" in problem for problem in check_dataset(folder).problems)
    assert len(check_dataset(folder).problems) == 2


class TestLabelsThatAreNotQuiteWhole:
    def test_are_one_note_with_counts(self, folder: Path) -> None:
        for case in ("case_001", "case_003"):
            scale_labels(files_of(folder, case)[1], 1 / 127.5, np.uint8)
        result = check_dataset(folder)
        voxels = 2 * np.count_nonzero(label_array() == 1)
        assert result.ok and len(result.notes) == 1
        assert "2 label volumes" in result.notes[0] and "1.003922" in result.notes[0]
        assert f"({voxels} voxels in case_001, case_003)" in result.notes[0]

    def test_below_their_label_are_a_problem_since_preprocessing_cuts_them_down(self, folder: Path) -> None:
        write_volume(files_of(folder, "case_001")[1], label_array() * np.float32(0.99999))
        assert "nnU-Net's preprocessing cuts them down" in only(check_dataset(folder))
        assert (label_array() * np.float32(0.99999)).astype(np.int8).max() == 1  # as it does: the lesion becomes organ

    def test_advice_is_not_to_add_the_value(self, folder: Path) -> None:
        write_volume(files_of(folder, "case_001")[1], label_array() * np.float32(1.02))
        assert "whole numbers" in only(check_dataset(folder)) and "add the label" not in only(check_dataset(folder))


class TestSoundAndUnusual:
    def test_fourth_axis_of_length_one(self, folder: Path) -> None:
        for case, part in (("case_001", "Tr"), ("case_005", "Val")):
            path = files_of(folder, case, part)[0]
            old = nib.load(path)
            nib.save(nib.Nifti1Image(np.asarray(old.dataobj)[..., None], old.affine), path)
        assert check_dataset(folder).problems == []

    def test_single_slices(self, tmp_path: Path) -> None:
        assert check_dataset(write_raw_dataset(tmp_path, shape=(1, 8, 10))).problems == []

    def test_regions_with_ignore_and_unknown_classes(self, folder: Path) -> None:
        labels = {"background": 0, "organ": [1, 2], "lesion": 2, "ignore": 3}
        edit_json(folder, labels=labels, regions_class_order=[1, 2])
        sparse = label_array()
        sparse[1::2] = 3
        write_volume(files_of(folder, "case_001")[1], sparse)
        classes = json.loads((folder / "classification.json").read_text())
        (folder / "classification.json").write_text(json.dumps({**classes, "case_000": -1, "case_001": -1}))
        assert check_dataset(folder).problems == []

    def test_no_lesion_and_no_organ(self, folder: Path) -> None:
        write_volume(files_of(folder, "case_001")[1], np.minimum(label_array(), 1))
        write_volume(files_of(folder, "case_002")[1], label_array() * 0)
        assert check_dataset(folder).problems == []

    @pytest.mark.parametrize("reader", [None, "NibabelIO"])
    def test_headers_of_every_dress(self, folder: Path, reader: str | None) -> None:
        if reader:
            edit_json(folder, overwrite_image_reader_writer=reader)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
        for case, dtype, order in (("case_001", "i8", "<"), ("case_002", "f8", "<"), ("case_003", "i2", ">")):
            for path in files_of(folder, case):
                old = nib.load(path)
                data = np.asarray(old.dataobj).astype(order + dtype)
                nib.save(
                    nib.Nifti1Image(data, turn @ old.affine, nib.Nifti1Header(endianness=order), dtype=data.dtype), path
                )
        assert check_dataset(folder).problems == []

    @pytest.mark.parametrize("case", ["1.2.840.113", "a b", "x,y;z", "p_0000_0000", "umlaut_ü", "-dash"])
    def test_names(self, folder: Path, case: str) -> None:
        for old, new in zip(files_of(folder, "case_003"), files_of(folder, case), strict=True):
            old.rename(new)
        classes = json.loads((folder / "classification.json").read_text())
        (folder / "classification.json").write_text(json.dumps({**classes, case: 1}))
        assert check_dataset(folder).num_training == 5
        assert check_dataset(folder).problems == []


def test_command_prints_notes_and_passes(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("nnunet_3dct.data.installation.check_installation", list)
    scale_labels(files_of(folder, "case_001")[1], 1 / 127.5, np.uint8)
    command.main(["-d", str(folder), "-np", "1"])
    output = capsys.readouterr().out
    assert "  ok    images, labels and classes" in output and "  note  1 label volumes" in output
