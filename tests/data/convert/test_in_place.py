"""Repairs in the files of a dataset, and back again, bit by bit."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct.data.convert.convert import convert_dataset
from nnunet_3dct.data.convert.in_place import repair_dataset, undo_repairs
from nnunet_3dct.data.repairs import find_repairs
from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.conversion import file_sha256, read_conversion
from tests.data.convert import makers
from tests.data.convert.makers import tree
from tests.data.test_repairing import noisy
from tests.data.test_repairs import nifti, sheared
from tests.utils import ct_array, label_array, unpack, write_raw_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A raw dataset that needs every repair, in files of its own."""
    folder = write_raw_dataset(tmp_path / "Dataset001_Raw")
    for n, mask in enumerate([label_array() * np.float32(1.0000153), noisy(), label_array()[None], label_array()]):
        affine = sheared(3e-4 if n == 3 else 0)
        nifti(folder / "imagesTr" / f"case_{n:03d}_0000.nii.gz", ct_array(seed=n), affine)
        affine[0, 3] += 0.01 * (n == 1)
        nifti(folder / "labelsTr" / f"case_{n:03d}.nii.gz", mask, affine)
    unpack(folder / "imagesTr/case_002_0000.nii.gz")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Decompressed content of every image; one that is not compressed counts as itself."""
    found = {}
    for name in tree(folder):
        if name.endswith(".nii.gz"):
            data = (folder / name).read_bytes()
            found[name] = b"packed " + gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return found


def needed(folder: Path) -> list[str]:
    return [
        repair.kind
        for n in range(4)
        for repair in find_repairs(
            folder / "labelsTr" / f"case_{n:03d}.nii.gz", folder / "imagesTr" / f"case_{n:03d}_0000.nii.gz"
        )
    ]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_repairs_are_made_and_undone_bit_by_bit(dataset: Path, num_processes: int) -> None:
    before = contents(dataset)
    assert set(needed(dataset)) == {"values", "integers", "grid", "direction", "one_volume", "compression"}
    result = repair_dataset(dataset, num_processes=num_processes)
    assert len(result.files) == 6 and not result.failed
    assert needed(dataset) == []
    assert repair_dataset(dataset).files == {}
    undone = undo_repairs(dataset)
    assert set(undone.files) == set(result.files) and not undone.failed
    assert contents(dataset) == before
    assert undo_repairs(dataset).files == {}


def test_case_that_cannot_be_repaired_is_left_alone(dataset: Path) -> None:
    labels = label_array().astype(np.float32)
    labels[1, 1, 1] = 0.5
    nifti(dataset / "labelsTr/case_000.nii.gz", labels)
    before = file_sha256(dataset / "labelsTr/case_000.nii.gz")
    result = repair_dataset(dataset)
    assert list(result.failed) == ["case_000"] and "found 0.5 (1 voxels)" in result.failed["case_000"]
    assert file_sha256(dataset / "labelsTr/case_000.nii.gz") == before and "labelsTr/case_001.nii.gz" in result.files


def test_links_to_another_place_are_not_written_through(dataset: Path, tmp_path: Path) -> None:
    mask = dataset / "labelsTr/case_000.nii.gz"
    kept = mask.rename(tmp_path / "elsewhere.nii.gz")
    mask.symlink_to(kept)
    before = file_sha256(kept)
    assert "labelsTr/case_000.nii.gz" in repair_dataset(dataset).files
    assert file_sha256(kept) == before and not mask.is_symlink()


def test_conversion_is_undone_to_the_content_of_the_source(tmp_path: Path) -> None:
    quiz = makers.challenge(tmp_path / "quiz")
    folder = convert_dataset(quiz, tmp_path / "Dataset001_Quiz").folder
    assert len(undo_repairs(folder).files) == 9
    for name, record in read_conversion(folder).files().items():
        original = gzip.decompress((quiz / record.source).read_bytes())
        assert gzip.decompress((folder / name).read_bytes()) == original
        assert record.undone == name.startswith("labels") and record.sha256 == file_sha256(folder / name)
    assert convert_dataset(quiz, folder).num_kept == 11


def test_file_that_was_edited_or_lost_since_is_named_and_left(tmp_path: Path) -> None:
    folder = convert_dataset(makers.challenge(tmp_path / "quiz"), tmp_path / "Dataset001_Quiz").folder
    labels = label_array()
    labels[3, 3, 3] = 2
    nifti(folder / "labelsTr/quiz_0_001.nii.gz", labels)
    (folder / "labelsTr/quiz_0_002.nii.gz").unlink()
    result = undo_repairs(folder)
    assert set(result.failed) == {"labelsTr/quiz_0_001.nii.gz", "labelsTr/quiz_0_002.nii.gz"}
    assert "has been changed since" in result.failed["labelsTr/quiz_0_001.nii.gz"]
    assert len(result.files) == 7


def test_folder_without_a_record_has_nothing_to_undo(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Only converted datasets have one"):
        undo_repairs(dataset)
    with pytest.raises(SettingsError, match="expected nnU-Net's description of the dataset"):
        repair_dataset(tmp_path)
    (dataset / "conversion.json").write_text('{"format": 99}')
    with pytest.raises(SettingsError, match="expected a record of a conversion, found another form"):
        undo_repairs(dataset)
