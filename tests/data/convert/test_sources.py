"""Sources are found out and read: which files are which case, and what is left out."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

import nnunet_3dct
from nnunet_3dct.data.convert.detect import find_kind
from nnunet_3dct.data.convert.folders import Folders
from nnunet_3dct.data.convert.reading import ConversionOptions, read_source
from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.class_labels import read_labels_in
from tests.data.convert import makers
from tests.data.convert.makers import tree
from tests.utils import ct_array, label_array, write_class_table, write_raw_dataset, write_volume


def read(root: Path, images: str | None = None, masks: str | None = None, **how: object) -> dict[str, tuple[str, int]]:
    """Case -> part and class."""
    source = read_source(root, ConversionOptions(folders=Folders(images, masks), **how))  # type: ignore[arg-type]
    return {case.case: (case.part, case.label) for case in source.cases}


def left_out(root: Path, images: str | None = None, masks: str | None = None) -> dict[str, str]:
    return read_source(root, ConversionOptions(folders=Folders(images, masks))).left_out


@pytest.mark.parametrize("kind", ["challenge", "decathlon", "dicom", "hospital"])
def test_kind_is_found_also_below_the_folder_of_an_archive(kind: str, tmp_path: Path) -> None:
    getattr(makers, kind)(tmp_path / "archive" / "inside")
    (tmp_path / "archive" / "__MACOSX").mkdir()
    found, root = find_kind(tmp_path / "archive", None, Folders())
    assert found == {"hospital": "folders"}.get(kind, kind)
    assert root.name in ("inside", "archive")


def test_what_is_no_source_is_told_what_would_be_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(SettingsError, match=r"challenge \(folders train/subtype0.*found notes\.txt"):
        find_kind(tmp_path, None, Folders())
    with pytest.raises(SettingsError, match=r"expected imagesTr, labelsTr and the dataset.json"):
        find_kind(tmp_path, "decathlon", Folders())
    with pytest.raises(SettingsError, match=r"kind"):
        find_kind(tmp_path, "nrrd", Folders())
    with pytest.raises(SettingsError, match=r"is a raw dataset of nnU-Net already.*--repair"):
        find_kind(write_raw_dataset(tmp_path / "Dataset001_Raw"), None, Folders())


def test_challenge_takes_the_class_from_the_folder_alone(tmp_path: Path) -> None:
    root = makers.challenge(tmp_path / "quiz")
    folder = root / "train" / "subtype2"
    makers.pair(folder / "quiz_0_900_0000.nii.gz", folder / "quiz_0_900.nii.gz", 9)
    makers.pair(root / "test" / "quiz_1_901_0000.nii.gz", None, 9)
    result = nnunet_3dct.convert_dataset(root, tmp_path / "Dataset001_Quiz")
    classes = json.loads((result.folder / "classification.json").read_text())
    assert classes["quiz_0_900"] == 2 and classes["quiz_1_901"] == -1 and classes["quiz_0_001"] == 0
    assert result.num_cases == {"Tr": 7, "Val": 3, "Ts": 3}
    assert "labelsTr/quiz_0_900.nii.gz" in tree(result.folder)


def test_challenge_names_what_is_in_no_case(tmp_path: Path) -> None:
    root = makers.challenge(tmp_path)
    (root / "train/subtype0/quiz_0_001.nii.gz").unlink()
    (root / "train/subtype0/quiz_0_002_0000.nii.gz").unlink()
    (root / "train/subtype0/._quiz_0_003_0000.nii.gz").write_bytes(b"\0\5\x16\7")
    makers.pair(root / "train" / "other" / "x_0000.nii.gz", None, 0)
    source = read_source(root, ConversionOptions())
    assert source.left_out == {
        "train/subtype0/quiz_0_001_0000.nii.gz": "has no mask; expected quiz_0_001.nii.gz beside it",
        "train/subtype0/quiz_0_002.nii.gz": "has no image; expected quiz_0_002_0000.nii.gz beside it",
        "train/other": "expected a folder named subtype0, subtype1, ...",
    }
    assert "hidden files" in source.notes[0]


@pytest.mark.parametrize(
    ("images", "masks"),
    [("a.nii.gz", "a.nii.gz"), ("a_0000.nii.gz", "a.nii.gz"), ("a_ct.nii.gz", "a_seg.nii.gz"),
     ("a.nii", "a-label.nii.gz"), ("a.mha", "a_mask.nrrd"), ("ct_a.nii.gz", "mask_a.nii.gz"),
     ("a_0042.nii.gz", "a_0042.nii.gz")],
)  # fmt: skip
def test_mask_is_found_by_its_name(images: str, masks: str, tmp_path: Path) -> None:
    write_volume(tmp_path / "images" / images, ct_array())
    write_volume(tmp_path / "masks" / masks, label_array())
    (case,) = read(tmp_path)
    assert case == ("a_0042" if "0042" in images else "a")


def test_words_are_no_endings_within_a_word(tmp_path: Path) -> None:
    for name in ("object", "select", "subgt"):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", ct_array())
        write_volume(tmp_path / "masks" / f"{name}.nii.gz", label_array())
    assert set(read(tmp_path)) == {"object", "select", "subgt"}


def test_numbers_are_channels_or_names_as_the_masks_say(tmp_path: Path) -> None:
    for number in range(2):
        write_volume(tmp_path / "images" / f"a_{number:04d}.nii.gz", ct_array())
    write_volume(tmp_path / "masks" / "a.nii.gz", label_array())
    (case,) = read_source(tmp_path, ConversionOptions()).cases
    assert [path.name for path in case.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    (tmp_path / "masks" / "a.nii.gz").rename(tmp_path / "masks" / "a_0000.nii.gz")
    write_volume(tmp_path / "masks" / "a_0001.nii.gz", label_array())
    assert set(read(tmp_path)) == {"a_0000", "a_0001"}


def test_a_folder_for_each_case(tmp_path: Path) -> None:
    for name in ("p1", "p2", "p3", "p4", "p5"):
        write_volume(tmp_path / name / "ct.nii.gz", ct_array())
        write_volume(tmp_path / name / "seg.nii.gz", label_array())
    write_class_table(tmp_path / "t.csv", [("p1", 0), ("p2", 1)])
    found = read(tmp_path, "*/ct.nii.gz", "*/seg.nii.gz")
    assert found["p1"] == ("Tr", 0) and found["p2"] == ("Tr", 1) and found["p5"] == ("Tr", -1)


def test_umlauts_match_in_either_form_of_unicode(tmp_path: Path) -> None:
    write_volume(tmp_path / "images" / (unicodedata.normalize("NFD", "Müller") + ".nii.gz"), ct_array())
    write_volume(tmp_path / "masks" / (unicodedata.normalize("NFC", "Müller") + ".nii.gz"), label_array())
    write_class_table(tmp_path / "t.csv", [("müller", 1)])
    assert list(read(tmp_path).values()) == [("Tr", 1)]


def test_what_does_not_pair_is_named_with_what_may_be_meant(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", ct_array())
    write_volume(tmp_path / "masks" / "a_final_v2.nii.gz", label_array())
    write_volume(tmp_path / "masks" / "b.nii.gz", label_array())
    write_volume(tmp_path / "masks" / "b.nrrd", label_array())
    found = left_out(tmp_path)
    assert found["images/a.nii.gz"] == "has no mask; is it a_final_v2.nii.gz?"
    assert found["masks/a_final_v2.nii.gz"] == "is a mask without an image"
    assert found["masks/b.nrrd"] == "expected one mask a case, found masks/b.nii.gz too"


def test_split_of_the_table_and_names_that_differ_only_in_capitals(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "D", "d"):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", ct_array())
    for name in ("a", "b"):
        write_volume(tmp_path / "masks" / f"{name}.nii.gz", label_array())
    rows = [("a", 0, "train"), ("b", 1, "Validation"), ("c", "", "test")]
    write_class_table(tmp_path / "t.csv", rows, header=("Names", "Subtype", "Split"))
    assert read(tmp_path) == {"a": ("Tr", 0), "b": ("Val", 1), "c": ("Ts", -1)}


@pytest.mark.parametrize("name", ["a\nb", "a:b", " a", "x" * 200, "a?"])
def test_names_that_no_file_should_have_are_left_out(name: str, tmp_path: Path) -> None:
    for folder, array in (("images", ct_array()), ("masks", label_array())):
        write_volume(tmp_path / folder / f"{name}.nii.gz", array)
        write_volume(tmp_path / folder / "sound.nii.gz", array)
    assert set(read(tmp_path)) == {"sound"}
    assert "expected a name" in left_out(tmp_path)[f"images/{name}.nii.gz"]


def test_decathlon_equals_what_nnunets_own_command_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.dataset_conversion import convert_MSD_dataset as theirs

    root = makers.decathlon(tmp_path / "Task21_Thing")
    result = nnunet_3dct.convert_dataset(root, tmp_path / "Dataset001_Thing")
    (tmp_path / "raw").mkdir()
    monkeypatch.setattr(theirs, "nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setattr(theirs, "find_candidate_datasets", lambda _: [])
    theirs.convert_msd_dataset(str(root), None, 1)
    other = tmp_path / "raw" / "Dataset021_Thing"
    ours = {name for name in tree(result.folder) if name.endswith(".nii.gz")}
    assert ours == {name for name in tree(other) if name.endswith(".nii.gz")} and len(ours) == 11
    for name in ours:
        one, two = (SimpleITK.ReadImage(str(folder / name)) for folder in (result.folder, other))
        assert np.array_equal(SimpleITK.GetArrayFromImage(one), SimpleITK.GetArrayFromImage(two))
        assert np.allclose(one.GetDirection(), two.GetDirection()) and np.allclose(one.GetOrigin(), two.GetOrigin())
    found, expected = (json.loads((folder / "dataset.json").read_text()) for folder in (result.folder, other))
    for key in ("labels", "channel_names", "file_ending", "numTraining"):
        assert found[key] == expected[key]
    assert json.loads((result.folder / "classification.json").read_text())["thing_001"] == 1


def test_decathlon_of_another_form_is_refused(tmp_path: Path) -> None:
    root = makers.decathlon(tmp_path / "Task21_Thing")
    (root / "dataset.json").write_text('{"modality": ["CT"], "labels": {}, "training": []}')
    with pytest.raises(SettingsError, match="expected modality and labels as in the Medical Segmentation Decathlon"):
        read_source(root, ConversionOptions())


def test_patients_are_read_from_the_table_and_found_by_the_splits(tmp_path: Path) -> None:
    result = nnunet_3dct.convert_dataset(makers.hospital(tmp_path / "clinic"), tmp_path / "Dataset001_Clinic")
    labels = read_labels_in([result.folder])
    assert labels.groups == {"scan1": "A", "scan2": "A", "scan3": "B", "scan4": "C"}
    assert labels.by_case == {"scan1": 0, "scan2": 1, "scan3": 0, "scan4": -1}
    assert result.class_names == ["Cystic", "solid"]
