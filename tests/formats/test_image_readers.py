from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.image_readers import choose_reader, find_reader_class, reader_name, reads_with_nibabel
from tests.utils import ct_array, tilt, write_volume

NIFTI = {"file_ending": ".nii.gz"}


@pytest.mark.parametrize(
    ("dataset_json", "plans", "expected"),
    [
        (NIFTI, None, "SimpleITKIO"),
        ({**NIFTI, "overwrite_image_reader_writer": "NibabelIO"}, None, "NibabelIO"),
        ({**NIFTI, "overwrite_image_reader_writer": "None"}, None, "SimpleITKIO"),
        (NIFTI, {"image_reader_writer": "NibabelIOWithReorient"}, "NibabelIOWithReorient"),
        (
            {**NIFTI, "overwrite_image_reader_writer": "NibabelIO"},
            {"image_reader_writer": "SimpleITKIO"},
            "SimpleITKIO",
        ),
        ({"file_ending": ".nii"}, None, "NibabelIO"),
        ({"file_ending": ".png"}, None, "NaturalImage2DIO"),
    ],
)
def test_plans_then_dataset_json_then_the_ending_decide(dataset_json: dict, plans: dict | None, expected: str) -> None:
    assert choose_reader(dataset_json, None, plans).__name__ == expected


def test_example_that_itk_cannot_read_moves_on_to_nibabel_as_in_nnunet(tmp_path: Path, capfd) -> None:
    example = write_volume(tmp_path / "a.nii.gz", ct_array(), (2, 2, 3))
    assert choose_reader(NIFTI, example).__name__ == "SimpleITKIO"
    assert choose_reader(NIFTI, tilt(example)).__name__ == "NibabelIO"
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("source", ["dataset.json", "plans"])
def test_name_that_is_no_reader_is_refused_with_those_there_are(source: str) -> None:
    content = {**NIFTI, "overwrite_image_reader_writer": "NiftiIO"} if source == "dataset.json" else NIFTI
    plans = {"image_reader_writer": "NiftiIO"} if source == "plans" else None
    with pytest.raises(ImageError, match=rf"^{source}: .*image_reader_writer: .*NibabelIO.*found 'NiftiIO'"):
        choose_reader(content, None, plans)


def test_ending_or_file_that_none_reads_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none of nnU-Net's readers reads \.foo"):
        choose_reader({"file_ending": ".foo"})
    (tmp_path / "a.nii.gz").write_text("text")
    with pytest.raises(ImageError, match=r"a\.nii\.gz: none of nnU-Net's readers can read this file"):
        choose_reader(NIFTI, tmp_path / "a.nii.gz")


def test_reader_may_be_a_name_a_class_or_an_instance() -> None:
    for reader in ("NibabelIO", find_reader_class("NibabelIO"), find_reader_class("NibabelIO")()):
        assert reader_name(reader) == "NibabelIO" and reads_with_nibabel(reader)
    assert not reads_with_nibabel("SimpleITKIO") and not reads_with_nibabel(None)
