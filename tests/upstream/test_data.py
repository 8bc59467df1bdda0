"""What we rely on of upstream's boxes, augmentation, names of datasets and files.

Values are written down or computed here by plain NumPy, so that a red test says what has changed upstream.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

from nnunet_3dct import upstream
from tests import toy
from tests.upstream.covered import covers
from tests.utils import ct_array, label_array, write_raw_dataset, write_volume


@covers("get_bbox_from_mask", "bounding_box_to_slice")
def test_box_of_a_mask_is_half_open_and_becomes_slices() -> None:
    mask = np.zeros((6, 7, 8), bool)
    mask[1:4, 2:6, 3] = True
    box = upstream.get_bbox_from_mask(mask)
    assert [list(side) for side in box] == [[1, 4], [2, 6], [3, 4]]
    assert upstream.bounding_box_to_slice(box) == (slice(1, 4), slice(2, 6), slice(3, 4))


@covers("get_bbox_from_mask")
def test_box_of_an_empty_mask_is_the_whole_volume() -> None:
    assert [list(side) for side in upstream.get_bbox_from_mask(np.zeros((2, 3, 4), bool))] == [[0, 2], [0, 3], [0, 4]]


@covers("pad_nd_image")
def test_padding_is_centred_of_the_last_axes_alone_and_comes_with_the_way_back() -> None:
    image = torch.arange(1.0, 13).reshape(1, 2, 6)
    padded, inside = upstream.pad_nd_image(image, [5, 4], "constant", {"value": 0}, True, None)
    assert padded.shape == (1, 5, 6)
    assert torch.equal(padded[inside], image)
    assert torch.equal(padded[0, 1:3], image[0]) and not padded[0, 0].any() and not padded[0, 3:].any()


@covers("BasicTransform", "ImageOnlyTransform", "RandomTransform")
def test_transforms_of_intensity_can_be_told_from_others() -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    composed = nnUNetTrainer.get_training_transforms(
        np.array((16, 16, 16)), (-0.5, 0.5), None, (0, 1, 2), False, foreground_labels=[1, 2]
    )
    assert isinstance(composed, upstream.BasicTransform)
    random = [t for t in composed.transforms if isinstance(t, upstream.RandomTransform)]
    names = {type(t.transform).__name__ for t in random if isinstance(t.transform, upstream.ImageOnlyTransform)}
    expected = (
        "GaussianNoise",
        "GaussianBlur",
        "MultiplicativeBrightness",
        "Contrast",
        "SimulateLowResolution",
        "Gamma",
    )
    assert names == {f"{name}Transform" for name in expected}


@covers("default_num_processes")
def test_number_of_processes_is_a_positive_integer() -> None:
    assert isinstance(upstream.default_num_processes, int) and upstream.default_num_processes >= 1


@covers("maybe_convert_to_dataset_name")
def test_dataset_is_found_by_number_and_an_unknown_one_is_a_runtime_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable).mkdir()
    (tmp_path / "nnUNet_raw" / "Dataset042_Answer").mkdir()
    assert upstream.maybe_convert_to_dataset_name(42) == "Dataset042_Answer"
    assert upstream.maybe_convert_to_dataset_name("42") == "Dataset042_Answer"
    assert upstream.maybe_convert_to_dataset_name("Dataset042_Answer") == "Dataset042_Answer"
    with pytest.raises(RuntimeError, match="43"):
        upstream.maybe_convert_to_dataset_name(43)


@covers("determine_reader_writer_from_dataset_json", "BaseReaderWriter")
def test_reader_fits_the_file_and_gives_voxels_and_spacing_in_the_order_of_numpy(tmp_path: Path) -> None:
    image = write_volume(tmp_path / "case_0000.nii.gz", ct_array((4, 5, 6)), spacing=(1, 2, 3))
    reader = upstream.determine_reader_writer_from_dataset_json({"file_ending": ".nii.gz"}, str(image), verbose=False)()
    assert isinstance(reader, upstream.BaseReaderWriter)
    array, properties = reader.read_images([str(image)])
    assert array.shape == (1, 4, 5, 6) and np.array_equal(array[0], ct_array((4, 5, 6)))
    assert list(properties["spacing"]) == [3, 2, 1]
    labels = write_volume(tmp_path / "case.nii.gz", label_array((4, 5, 6)), spacing=(1, 2, 3))
    read, _ = reader.read_seg(str(labels))
    assert np.array_equal(read, label_array((4, 5, 6))[None])
    reader.write_seg(read[0], str(tmp_path / "copy.nii.gz"), properties)
    assert np.array_equal(reader.read_seg(str(tmp_path / "copy.nii.gz"))[0], read)


@covers("determine_reader_writer_from_dataset_json")
def test_reader_that_dataset_json_names_is_taken(tmp_path: Path) -> None:
    content = {"file_ending": ".nii.gz", "overwrite_image_reader_writer": "NibabelIO"}
    assert upstream.determine_reader_writer_from_dataset_json(content, None, verbose=False).__name__ == "NibabelIO"


@covers("get_filenames_of_train_images_and_targets")
def test_training_cases_have_their_channels_in_order_and_a_label(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path / "Dataset001_Two", classes=(0, 1), channels=2)
    found = upstream.get_filenames_of_train_images_and_targets(str(folder))
    assert list(found) == ["case_000", "case_001"]
    assert [Path(p).name for p in found["case_000"]["images"]] == ["case_000_0000.nii.gz", "case_000_0001.nii.gz"]
    assert Path(found["case_001"]["label"]).name == "case_001.nii.gz"


@covers("recursive_find_reader_writer_by_name")
def test_readers_are_found_by_name_and_an_unknown_one_is_a_runtime_error() -> None:
    found = upstream.recursive_find_reader_writer_by_name("SimpleITKIO")
    assert issubclass(found, upstream.BaseReaderWriter) and ".nii.gz" in found.supported_file_endings
    with pytest.raises(RuntimeError, match="NoSuchIO"):
        upstream.recursive_find_reader_writer_by_name("NoSuchIO")


@covers("infer_dataset_class")
def test_preprocessed_cases_are_listed_and_loaded(preprocessed: Path, configuration: Any) -> None:
    folder = str(preprocessed / configuration.data_identifier)
    dataset_class = upstream.infer_dataset_class(folder)
    assert sorted(dataset_class.get_identifiers(folder)) == toy.CASES
    data, segmentation, previous, properties = dataset_class(folder).load_case(toy.CASES[0])
    assert np.asarray(data[:]).ndim == 4 and np.asarray(segmentation[:]).shape == np.asarray(data[:]).shape
    assert previous is None and "spacing" in properties


@covers("split_4d_nifti")
def test_split_4d_nifti_writes_one_file_a_volume(tmp_path: Path) -> None:
    volumes = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(volume) for volume in volumes])
    SimpleITK.WriteImage(image, str(tmp_path / "case.nii.gz"))
    (tmp_path / "out").mkdir()
    upstream.split_4d_nifti(str(tmp_path / "case.nii.gz"), str(tmp_path / "out"))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["case_0000.nii.gz", "case_0001.nii.gz"]
    for name, volume in zip(names, volumes, strict=True):
        assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out" / name))), volume)
