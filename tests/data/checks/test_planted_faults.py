"""One fault in a sound dataset: the check names it, with its case and under its subject, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.data.checks.dataset import DatasetCheck, check_dataset
from nnunet_3dct.data.checks.findings import Finding
from tests.data.checks.makers import SPACING, change, copy_case, ct, files_of, write_ct_dataset, write_plans
from tests.utils import scale_labels, truncate, with_nan, write_volume

PLANNED = {"3d_fullres": {"patch_size": [14, 28, 30], "batch_size": 8, "spacing": [2.0, 0.8, 0.8]}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ct_dataset(tmp_path_factory.mktemp("sound") / "Dataset001_CT", training=10, validation=2, test=1)


@pytest.fixture
def folder(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sound dataset, for one test to spoil."""
    import shutil

    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return Path(shutil.copytree(sound, tmp_path / "Dataset001_CT"))


def only(result: DatasetCheck, *also: str) -> Finding:
    """The one finding, besides those of the subjects ``also``."""
    left = [finding for finding in result.findings if finding.subject not in also]
    assert len(left) == 1, left
    return left[0]


def test_sound_dataset_is_without_findings(folder: Path) -> None:
    result = check_dataset(folder)
    assert result.findings == [] and result.ok and result.num_cases == 13


def edit_table(folder: Path, **changes: object) -> None:
    path = folder / "classification.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def as_int16(edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.rint(edit(array.astype(float))).astype(np.int16)


def blank_end(array: np.ndarray) -> np.ndarray:
    array[-4:] = 0
    return array


class TestIntensities:
    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            (as_int16(lambda a: a + 1024), "looks raw, the scanner's intercept"),
            (as_int16(lambda a: np.clip(a, -160, 90)), "looks windowed"),
            (lambda a: np.rint(np.clip((a + 160) / 400, 0, 1) * 255).astype(np.uint8), "looks like grey levels"),
            (lambda a: np.clip((a + 160) / 400, 0, 1).astype(np.float32), "looks scaled"),
            (lambda a: ((a - a.mean()) / a.std()).astype(np.float32), "looks scaled or standardised"),
            (blank_end, "the last 4 of 14"),
        ],
        ids=["raw", "windowed", "bytes", "scaled", "standardised", "blank slices"],
    )
    def test_that_are_no_hu_or_end_early_are_named(self, folder: Path, edit: Callable, words: str) -> None:
        change(files_of(folder, "case_003")[0], edit)
        finding = only(check_dataset(folder), "outliers")
        assert (finding.subject, finding.level, finding.cases) == ("intensities", "warning", ("case_003",))
        assert words in finding.text and "case_003" in finding.text

    def test_of_all_cases_are_one_line(self, folder: Path) -> None:
        for path in folder.glob("images*/*"):
            change(path, as_int16(lambda a: np.clip(a, -160, 90)))
        finding = only(check_dataset(folder))
        assert finding.text.startswith("13 cases: case_000") and len(finding.cases) == 13

    def test_of_other_modalities_are_not_judged(self, folder: Path) -> None:
        description = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps({**description, "channel_names": {"0": "T2"}}))
        for path in folder.glob("images*/*"):
            change(path, as_int16(lambda a: a + 1024))
        assert check_dataset(folder).findings == []

    @pytest.mark.parametrize(
        ("edit", "words"),
        [(np.zeros_like, "one and the same value"), (with_nan, "found NaN or infinity in 1 of")],
        ids=["zeros", "nan"],
    )
    def test_that_cannot_be_used_are_a_problem(self, folder: Path, edit: Callable, words: str) -> None:
        path = files_of(folder, "case_003")[0]
        write_volume(path, edit(ct(3)[0]), SPACING)
        finding = only(check_dataset(folder))
        assert finding.level == "problem" and words in finding.text and finding.cases == ("case_003",)

    def test_infinity_is_a_problem(self, folder: Path) -> None:
        image = ct(3)[0].astype(np.float32)
        image[2, 3, 4] = np.inf
        write_volume(files_of(folder, "case_003")[0], image, SPACING)
        assert "found NaN or infinity" in only(check_dataset(folder)).text


class TestOrientation:
    def test_other_order_of_axes_is_named(self, folder: Path) -> None:
        copy_case(folder, "case_003", "case_003", lambda image: SimpleITK.DICOMOrient(image, "PIR"))
        finding = only(check_dataset(folder), "outliers")
        assert (finding.subject, finding.level, finding.cases) == ("orientation", "warning", ("case_003",))
        assert "LPS of the patient in 12 cases, but PIR in case_003" in finding.text
        description = json.loads((folder / "dataset.json").read_text())
        reader = {"overwrite_image_reader_writer": "SimpleITKIOWithReorient"}
        (folder / "dataset.json").write_text(json.dumps({**description, **reader}))
        assert not [f for f in check_dataset(folder).findings if f.subject == "orientation"]

    def test_mirrored_axes_are_named(self, folder: Path) -> None:
        for path in files_of(folder, "case_003"):
            image = SimpleITK.ReadImage(str(path))
            image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
            SimpleITK.WriteImage(image, str(path), True)
        texts = [f.text for f in check_dataset(folder).findings if f.subject == "orientation"]
        assert len(texts) == 2 and "left-handed axes in 1 case, unlike the others: case_003" in texts[1]

    @pytest.mark.parametrize(("move", "level"), [((0, 0, -1), "problem"), ((0, 3, 5), "warning")])
    def test_sform_against_qform_is_named(self, folder: Path, move: tuple, level: str) -> None:
        row, column, value = move
        for path in files_of(folder, "case_003"):
            old = nib.load(path)
            affine = old.affine.copy()
            old.set_qform(affine, 1)
            affine[row, column] = affine[row, column] * value if column < 3 else affine[row, column] + value
            old.set_sform(affine, 1)
            nib.save(old, path)
        finding = next(f for f in check_dataset(folder).findings if "sform" in f.text)
        assert (finding.level, finding.cases) == (level, ("case_003",))
        assert ("mirrored or turned" in finding.text) is (level == "problem")


class TestLeaks:
    @pytest.mark.parametrize(
        "turn",
        [
            lambda image: image,
            lambda image: SimpleITK.DICOMOrient(image, "RAI"),
            lambda image: SimpleITK.Flip(image, (True, False, False), False),  # the header says nothing of it
            lambda image: image if image.GetPixelID() == SimpleITK.sitkUInt8 else image + 50,
            lambda image: resampled(image, 1.4),
            lambda image: resampled(image, 0.7),
        ],
        ids=["same", "turned", "mirrored", "offset", "coarser", "finer"],
    )
    def test_image_of_training_under_another_name_in_validation(self, folder: Path, turn: Callable) -> None:
        copy_case(folder, "case_004", "val_001", turn)
        finding = only(check_dataset(folder), "orientation", "outliers")
        assert (finding.subject, finding.level, finding.cases) == ("leaks", "problem", ("case_004", "val_001"))
        assert "1 pair: case_004 (training) and val_001 (validation)" in finding.text

    def test_image_twice_in_training_is_a_warning(self, folder: Path) -> None:
        copy_case(folder, "case_004", "case_007")
        finding = only(check_dataset(folder))
        assert (finding.level, finding.cases) == ("warning", ("case_004", "case_007"))

    def test_patient_in_two_parts_is_told_by_its_cases(self, folder: Path) -> None:
        rows = [
            "Names,Subtype,Patient",
            "case_001,1,secret",
            "test_000,0,secret",
            "case_002,0,other",
            "case_004,0,other",
        ]
        (folder / "classification.csv").write_text("\n".join(rows))
        finding = only(check_dataset(folder))
        assert (finding.subject, finding.level, finding.cases) == ("leaks", "problem", ("case_001", "test_000"))
        assert "case_001 (training), test_000 (test)" in finding.text and "secret" not in finding.text


def resampled(image: SimpleITK.Image, factor: float) -> SimpleITK.Image:
    size = [max(1, int(n / factor)) for n in image.GetSize()]
    spacing = [factor * s for s in image.GetSpacing()]
    kind = SimpleITK.sitkNearestNeighbor if image.GetPixelID() == SimpleITK.sitkUInt8 else SimpleITK.sitkLinear
    origin = [o + (factor - 1) / 2 * s for o, s in zip(image.GetOrigin(), image.GetSpacing(), strict=True)]
    return SimpleITK.Resample(image, size, SimpleITK.Transform(), kind, origin, spacing, image.GetDirection())


class TestStructures:
    def test_empty_mask(self, folder: Path) -> None:
        change(files_of(folder, "case_003")[1], np.zeros_like)
        finding = only(check_dataset(folder))
        assert finding.cases == ("case_003",) and "empty label in 1 case: case_003" in finding.text

    def test_label_that_no_case_has(self, folder: Path) -> None:
        for path in folder.glob("labelsTr/*"):
            change(path, lambda a: np.minimum(a, 1))
        assert "lesion (label 2 of dataset.json) is in no training case" in only(check_dataset(folder)).text

    def test_case_without_target(self, folder: Path) -> None:
        change(files_of(folder, "case_003")[1], lambda a: np.minimum(a, 1))
        assert check_dataset(folder).findings == []  # all foreground carries the class
        finding = only(check_dataset(folder, target_labels=["lesion"]))
        assert finding.cases == ("case_003",) and "no voxel of the target" in finding.text

    def test_label_that_dataset_json_does_not_name(self, folder: Path) -> None:
        change(files_of(folder, "case_003")[1], lambda a: a * 2)
        finding = only(check_dataset(folder))
        assert finding.level == "problem" and "found also 4" in finding.text and finding.cases == ("case_003",)


class TestOutliers:
    def test_voxel_size(self, folder: Path) -> None:
        for path in files_of(folder, "case_003"):
            image = SimpleITK.ReadImage(str(path))
            image.SetSpacing((0.8, 0.8, 9.0))
            SimpleITK.WriteImage(image, str(path), True)
        findings = [f for f in check_dataset(folder).findings if f.text.startswith("voxel size")]
        assert len(findings) == 1 and findings[0].cases == ("case_003",) and "0.8 x 0.8 x 9 mm" in findings[0].text

    def test_size(self, folder: Path) -> None:
        for path, array in zip(files_of(folder, "case_003"), ct(3, (60, 28, 30)), strict=True):
            write_volume(path, array, SPACING)
        texts = [f.text for f in check_dataset(folder).findings if f.cases == ("case_003",)]
        assert any(text.startswith("extent of the image") and "24 x 22.4 x 120 mm" in text for text in texts)

    def test_intensity(self, folder: Path) -> None:
        change(files_of(folder, "case_003")[0], as_int16(lambda a: np.where(a > -500, a + 400, a)))
        texts = [f.text for f in check_dataset(folder).findings if f.cases == ("case_003",)]
        assert any(text.startswith("mean intensity of the labelled voxels") for text in texts)


class TestPlan:
    def plan(self, folder: Path, **changes: object) -> DatasetCheck:
        configurations = {"3d_fullres": {**PLANNED["3d_fullres"], **changes}}
        write_plans(folder.parent / "preprocessed" / folder.name, configurations)
        return check_dataset(folder)

    def test_that_suits_is_without_findings(self, folder: Path) -> None:
        assert self.plan(folder).findings == []

    def test_with_a_batch_below_8(self, folder: Path) -> None:
        finding = only(self.plan(folder, batch_size=2))
        assert (finding.subject, finding.level) == ("plan", "warning")
        assert "2 in 3d_fullres of nnUNetPlans" in finding.text and "-gpu_memory_target" in finding.text

    def test_whose_patch_is_smaller_than_the_target(self, folder: Path) -> None:
        finding = only(self.plan(folder, patch_size=[14, 28, 8]))
        assert "does not fit the patch of 3d_fullres" in finding.text and len(finding.cases) == 10

    def test_whose_voxels_make_the_lesion_vanish(self, folder: Path) -> None:
        findings = self.plan(folder, spacing=[18.0, 9.0, 9.0]).findings
        assert any(f.text.startswith("lesion vanishes at the planned voxel size") and f.cases for f in findings)

    def test_that_cannot_be_read(self, folder: Path) -> None:
        write_plans(folder.parent / "preprocessed" / folder.name, {"3d_fullres": {"inherits_from": "nothing"}})
        assert "no plans of nnU-Net" in only(check_dataset(folder)).text


class TestClasses:
    def test_fewer_cases_than_folds(self, folder: Path) -> None:
        edit_table(folder, case_001=2, case_003=2)
        finding = only(check_dataset(folder))
        assert "class 1 with 3, class 2 with 2 (case_001, case_003" in finding.text

    def test_uneven_classes(self, tmp_path: Path) -> None:
        folder = write_ct_dataset(tmp_path / "Dataset001_CT", training=12, validation=0, shape=(6, 12, 12))
        edit_table(folder, **{f"case_{n:03d}": int(n == 0) for n in range(12)})
        texts = [f.text for f in check_dataset(folder).findings if f.subject == "classes"]
        assert len(texts) == 2 and "uneven classes: 11, 1 training cases" in texts[1]

    def test_fold_without_a_class(self, folder: Path) -> None:
        cases = [f"case_{n:03d}" for n in range(10)]
        odd, even = cases[1::2], cases[::2]
        splits = folder.parent / "preprocessed" / folder.name / "splits_final.json"
        splits.parent.mkdir(parents=True)
        splits.write_text(json.dumps([{"train": odd, "val": even}, {"train": even, "val": odd}]))
        texts = [f.text for f in check_dataset(folder).findings if f.subject == "classes"]
        assert "splits_final.json: fold 0 has no training case of class 0" in texts and len(texts) == 4


class TestFiles:
    def test_truncated_file(self, folder: Path) -> None:
        truncate(files_of(folder, "case_003")[0], 0.5)
        finding = only(check_dataset(folder))
        assert finding.level == "problem" and "truncated" in finding.text and finding.cases == ("case_003",)

    def test_label_on_another_grid(self, folder: Path) -> None:
        write_volume(files_of(folder, "case_003")[1], ct(3)[1], (0.8, 0.8, 2.5))
        finding = only(check_dataset(folder))
        assert "does not fit image" in finding.text and finding.cases == ("case_003",)

    def test_values_that_are_not_quite_whole_with_the_command_that_repairs_them(self, folder: Path) -> None:
        scale_labels(files_of(folder, "case_003")[1], 1 / 127.5, np.uint8)
        finding = only(check_dataset(folder))
        assert finding.level == "note" and finding.cases == ("case_003",)
        assert finding.text.endswith(f"nnUNet3DCT_convert -i {folder} --repair")

    def test_mask_beside_its_image_by_rounding(self, folder: Path) -> None:
        write_volume(files_of(folder, "case_003")[1], ct(3)[1], SPACING, origin=(0.002, 0, 0))
        finding = only(check_dataset(folder))
        assert (finding.subject, finding.level, finding.cases) == ("repairs", "note", ("case_003",))
        assert "it takes the image's grid" in finding.text and "--repair" in finding.text
