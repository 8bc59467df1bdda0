"""What this project relies on of nnU-Net and the libraries beneath it, one name of ``upstream.HOMES`` at a time.

Values are written down or computed here by plain NumPy, so that a red test says what has changed upstream.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

from nnunet_3dct import upstream
from tests import toy
from tests.utils import ct_array, label_array, write_raw_dataset, write_volume

PACKAGE = Path(upstream.__file__).parent
TESTED: set[str] = set()


def covers(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark which names of upstream a test is about."""
    TESTED.update(names)
    return lambda test: test


@pytest.fixture(scope="module")
def preprocessed(toy_root: Path) -> Path:
    """The preprocessed toy dataset."""
    return toy_root / "preprocessed" / toy.DATASET


@pytest.fixture(scope="module")
def plans(preprocessed: Path) -> dict[str, Any]:
    return json.loads((preprocessed / f"{toy.PLANS}.json").read_text())


@pytest.fixture(scope="module")
def dataset_json(preprocessed: Path) -> dict[str, Any]:
    return json.loads((preprocessed / "dataset.json").read_text())


@pytest.fixture(scope="module")
def plans_manager(plans: dict[str, Any]) -> Any:
    return upstream.PlansManager(plans)


@pytest.fixture(scope="module")
def configuration(plans_manager: Any) -> Any:
    return plans_manager.get_configuration("3d_fullres")


# ---------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("name", sorted(upstream.HOMES))
def test_name_has_a_test_of_behaviour(name: str) -> None:
    assert name in TESTED


@pytest.mark.parametrize("name", sorted(upstream.HOMES))
def test_name_is_used(name: str) -> None:
    users = [path for path in PACKAGE.rglob("*.py") if path.name != "upstream.py" and name in _imported(path)]
    assert users, f"nothing imports {name}; take it out of the table"


def _imported(path: Path) -> set[str]:
    """Names that a file imports from upstream, or reads as ``upstream.name``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    names = {alias.name for node in imports if node.module == "nnunet_3dct.upstream" for alias in node.names}
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return names | {n.attr for n in attributes if isinstance(n.value, ast.Name) and n.value.id == "upstream"}


@pytest.mark.parametrize("name", sorted(upstream.HOMES))
def test_name_is_the_one_of_its_home(name: str) -> None:
    assert getattr(upstream, name) is getattr(import_module(upstream.HOMES[name]), name)


def test_name_that_is_not_in_the_table_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pad_bbox'"):
        upstream.pad_bbox  # noqa: B018


# ---------------------------------------------------------------------------------------------- boxes and padding


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


# ---------------------------------------------------------------------------------------------- augmentation


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


# ---------------------------------------------------------------------------------------------- configuration, paths


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


# ---------------------------------------------------------------------------------------------- files


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


# ---------------------------------------------------------------------------------------------- plans and labels


@covers("PlansManager", "ConfigurationManager")
def test_plans_tell_what_a_network_and_its_input_look_like(plans_manager: Any, configuration: Any) -> None:
    assert isinstance(configuration, upstream.ConfigurationManager)
    assert plans_manager.plans_name == toy.PLANS and plans_manager.dataset_name == toy.DATASET
    assert sorted(plans_manager.transpose_forward) == sorted(plans_manager.transpose_backward) == [0, 1, 2]
    assert list(configuration.patch_size) == [16, 16, 16] and len(configuration.spacing) == 3
    assert configuration.data_identifier and configuration.batch_size == 2
    assert configuration.use_mask_for_norm == [False]
    assert configuration.resampling_fn_data.func is upstream.resample_data_or_seg_to_shape
    assert plans_manager.foreground_intensity_properties_per_channel["0"].keys() >= {"percentile_00_5", "mean"}


@covers("LabelManager")
def test_labels_regions_and_the_ignore_label_are_told_apart() -> None:
    labels = upstream.LabelManager({"background": 0, "organ": 1, "lesion": 2}, None)
    assert (labels.has_regions, labels.ignore_label, labels.num_segmentation_heads) == (False, None, 3)
    assert list(labels.foreground_labels) == [1, 2] and list(labels.all_labels) == [0, 1, 2]
    regions = upstream.LabelManager({"background": 0, "whole": (1, 2), "lesion": 2, "ignore": 3}, [1, 2])
    assert (regions.has_regions, regions.ignore_label, regions.num_segmentation_heads) == (True, 3, 2)
    assert list(regions.foreground_regions) == [(1, 2), 2]


@covers("LabelManager")
def test_logits_become_labels_by_the_largest_or_by_regions_in_their_order() -> None:
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 1.0, 1.0]])[:, None, None]
    plain = upstream.LabelManager({"background": 0, "organ": 1, "lesion": 2}, None)
    assert plain.convert_logits_to_segmentation(logits).flatten().tolist() == [0, 1, 2]
    regions = upstream.LabelManager({"background": 0, "whole": (1, 2), "lesion": 2}, [1, 2])
    logits = torch.tensor([[3.0, 3.0, -3.0], [-3.0, 3.0, -3.0]])[:, None, None]
    assert regions.convert_logits_to_segmentation(logits).flatten().tolist() == [1, 2, 0]


@covers("convert_labelmap_to_one_hot")
def test_one_hot_labels_have_the_type_that_was_asked_for() -> None:
    found = upstream.convert_labelmap_to_one_hot(np.array([[0, 1], [2, 2]]), [1, 2], output_dtype=np.float32)
    assert found.dtype == np.float32
    assert found.tolist() == [[[0, 1], [0, 0]], [[0, 0], [1, 1]]]


@covers("determine_num_input_channels")
def test_channels_are_those_of_the_images(plans_manager: Any, configuration: Any, dataset_json: dict[str, Any]) -> None:
    assert upstream.determine_num_input_channels(plans_manager, configuration, dataset_json) == 1
    two = {**dataset_json, "channel_names": {"0": "CT", "1": "CT"}}
    assert upstream.determine_num_input_channels(plans_manager, configuration, two) == 2


@covers("get_network_from_plans")
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_network_of_the_plans_has_encoder_and_decoder(configuration: Any, deep_supervision: bool) -> None:
    network = upstream.get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        3,
        deep_supervision=deep_supervision,
    )
    assert network.decoder.deep_supervision is deep_supervision
    x = torch.zeros(1, 1, 16, 16, 16)
    skips = network.encoder(x)
    assert [s.shape[1] for s in skips] == [4, 8, 16]
    output = network(x)
    assert (output[0] if deep_supervision else output).shape == (1, 3, 16, 16, 16)


@covers("recursive_find_trainer_class_by_name")
def test_trainers_are_found_by_name_and_an_unknown_one_is_a_runtime_error() -> None:
    assert upstream.recursive_find_trainer_class_by_name("nnUNetTrainer") is upstream.nnUNetTrainer
    with pytest.raises(RuntimeError, match="nnUNetTrainer_Nowhere"):
        upstream.recursive_find_trainer_class_by_name("nnUNetTrainer_Nowhere")


@covers("generate_crossval_split")
def test_plain_splits_are_stable_and_hold_each_case_once() -> None:
    cases = [f"case_{n}" for n in range(10)]
    splits = upstream.generate_crossval_split(cases, seed=12345, n_splits=5)
    assert splits == upstream.generate_crossval_split(cases, seed=12345, n_splits=5)
    assert sorted(case for split in splits for case in split["val"]) == cases
    assert all(sorted([*split["train"], *split["val"]]) == cases for split in splits)


# ---------------------------------------------------------------------------------------------- preprocessing


@covers("compute_new_shape")
def test_new_shape_keeps_the_extent_in_mm() -> None:
    assert upstream.compute_new_shape((10, 20, 30), (3, 1, 1), (1.5, 2, 1)).tolist() == [20, 10, 30]


@covers("determine_do_sep_z_and_axis")
@pytest.mark.parametrize(
    ("force", "old", "new", "expected"),
    [
        (None, (5, 1, 1), (1, 1, 1), (True, 0)),
        (None, (1, 1, 1), (1, 1, 4), (True, 2)),
        (None, (2, 1, 1), (1, 1, 1), (False, None)),
        (None, (0.24, 1.25, 1.25), (1, 1, 1), (False, None)),
        (False, (5, 1, 1), (1, 1, 1), (False, None)),
        (True, (1, 2, 1), (1, 1, 1), (True, 1)),
    ],
)
def test_slices_are_resampled_apart_where_the_spacing_differs_threefold(
    force: bool | None, old: tuple[float, ...], new: tuple[float, ...], expected: tuple[bool, int | None]
) -> None:
    separate, axis = upstream.determine_do_sep_z_and_axis(force, old, new)
    assert (bool(separate), None if axis is None else int(np.ravel(axis)[0])) == expected


@covers("determine_do_sep_z_and_axis")
def test_threshold_of_separate_slices_is_a_keyword() -> None:
    separate, _ = upstream.determine_do_sep_z_and_axis(None, (5, 1, 1), (1, 1, 1), separate_z_anisotropy_threshold=6)
    assert not separate


@covers("resample_data_or_seg_to_shape")
def test_resampling_has_the_options_that_ours_stands_in_for_and_keeps_a_constant() -> None:
    parameters = inspect.signature(upstream.resample_data_or_seg_to_shape).parameters
    assert list(parameters)[:4] == ["data", "new_shape", "current_spacing", "new_spacing"]
    expected = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False}
    assert {name: parameters[name].default for name in expected} == expected
    assert "separate_z_anisotropy_threshold" in parameters
    found = upstream.resample_data_or_seg_to_shape(
        np.full((1, 4, 4, 4), 7.0, np.float32), (8, 4, 2), (2, 1, 1), (1, 1, 2), order=3
    )
    assert found.shape == (1, 8, 4, 2) and np.allclose(found, 7)


@covers("DefaultPreprocessor")
def test_preprocessing_crops_normalises_and_notes_what_undoes_it(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any]
) -> None:
    preprocessor = upstream.DefaultPreprocessor(verbose=False)
    image = np.zeros((1, *toy.SHAPE), np.float32)
    image[:, 2:14, 4:20, 4:20] = toy.toy_volume(0)[0][2:14, 4:20, 4:20]
    properties: dict[str, Any] = {"spacing": [1.0, 1.0, 1.0]}
    data, _, _ = preprocessor.run_case_npy(image, None, properties, plans_manager, configuration, dataset_json)
    assert data.shape == (1, 12, 16, 16)
    assert tuple(properties["shape_before_cropping"]) == toy.SHAPE
    assert [list(side) for side in properties["bbox_used_for_cropping"]] == [[2, 14], [4, 20], [4, 20]]
    assert tuple(properties["shape_after_cropping_and_before_resampling"]) == (12, 16, 16)
    normalised = preprocessor._normalize(
        image[:, 2:14, 4:20, 4:20].copy(),
        np.zeros((1, 12, 16, 16), np.int8),
        configuration,
        plans_manager.foreground_intensity_properties_per_channel,
    )
    assert np.allclose(normalised, data, atol=1e-5)


# ---------------------------------------------------------------------------------------------- prediction


@covers("compute_steps_for_sliding_window")
@pytest.mark.parametrize(
    ("size", "tile", "step", "expected"),
    [
        ((110,), (64,), 0.5, [[0, 23, 46]]),
        ((16, 24), (16, 16), 0.5, [[0], [0, 8]]),
        ((24,), (16,), 1.0, [[0, 8]]),
    ],
)
def test_windows_are_spread_evenly(
    size: tuple[int, ...], tile: tuple[int, ...], step: float, expected: list[list[int]]
) -> None:
    assert upstream.compute_steps_for_sliding_window(size, tile, step) == expected


@covers("compute_gaussian")
def test_weight_of_a_window_is_the_gaussian_of_scipy_with_its_maximum_scaled() -> None:
    from scipy.ndimage import gaussian_filter

    found = upstream.compute_gaussian(
        (8, 16), sigma_scale=1 / 8, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu")
    )
    point = np.zeros((8, 16))
    point[4, 8] = 1
    expected = gaussian_filter(point, (1, 2), 0, mode="constant", cval=0)
    assert np.allclose(found.numpy(), expected / expected.max() * 10, atol=1e-5)
    assert found.min() > 0


def _properties() -> dict[str, Any]:
    return {
        "spacing": [1.0, 1.0, 1.0],
        "shape_before_cropping": (6, 6, 6),
        "shape_after_cropping_and_before_resampling": (4, 4, 4),
        "bbox_used_for_cropping": [[1, 5], [1, 5], [1, 5]],
        "sitk_stuff": {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": tuple(np.eye(3).ravel())},
    }


def _logits() -> torch.Tensor:
    """Organ (1) in the upper half of a cropped volume of four voxels along each axis."""
    logits = torch.zeros(3, 4, 4, 4)
    logits[0, 2:], logits[1, :2] = 5, 5
    return logits


@covers("convert_predicted_logits_to_segmentation_with_correct_shape")
def test_logits_become_labels_on_the_grid_before_cropping(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any]
) -> None:
    labels = plans_manager.get_label_manager(dataset_json)
    found = upstream.convert_predicted_logits_to_segmentation_with_correct_shape(
        _logits(), plans_manager, configuration, labels, _properties(), num_threads_torch=torch.get_num_threads()
    )
    expected = np.zeros((6, 6, 6))
    expected[1:3, 1:5, 1:5] = 1
    assert np.array_equal(found, expected)


@covers("export_prediction_from_logits")
def test_export_writes_labels_and_with_them_probabilities_and_properties(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any], tmp_path: Path
) -> None:
    upstream.export_prediction_from_logits(
        _logits(), _properties(), configuration, plans_manager, dataset_json, str(tmp_path / "case"), True
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.nii.gz", "case.npz", "case.pkl"]
    probabilities = np.load(tmp_path / "case.npz")["probabilities"]
    assert probabilities.shape == (3, 6, 6, 6) and np.allclose(probabilities.sum(0), 1, atol=1e-3)


@covers("nnUNetPredictor")
def test_predictor_takes_a_network_and_slides_it_over_a_volume(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any]
) -> None:
    class Marker(torch.nn.Module):
        """Says organ (1) wherever the input is positive."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([-x, x, torch.full_like(x, -100)], dim=1)

    predictor = upstream.nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.manual_initialization(Marker(), plans_manager, configuration, None, dataset_json, "any", None)
    data = torch.ones(1, 16, 24, 24)
    data[:, :, 12:] = -1
    logits = predictor.predict_sliding_window_return_logits(data)
    assert logits.shape == (3, 16, 24, 24)
    assert torch.equal(logits.argmax(0) == 1, data[0] > 0)


@covers("nnUNetPredictor")
def test_predictor_starts_a_case_again_after_any_runtime_error(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what a network notes on the side has to belong to a case, not to a pass."""
    source = inspect.getsource(upstream.nnUNetPredictor.predict_sliding_window_return_logits)
    assert "except RuntimeError" in source and "perform_everything_on_device" in source
    predictor = upstream.nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.manual_initialization(torch.nn.Identity(), plans_manager, configuration, None, dataset_json, "any", None)
    predictor.device, predictor.perform_everything_on_device = _PretendCuda(), True
    calls = []

    def attempt(data: torch.Tensor, slicers: object, on_device: bool) -> torch.Tensor:
        calls.append(on_device)
        if on_device:
            raise RuntimeError("cuDNN error: unable to find an engine")
        return data

    monkeypatch.setattr(predictor, "_internal_predict_sliding_window_return_logits", attempt)
    monkeypatch.setattr(predictor.network, "to", lambda device: predictor.network)
    monkeypatch.setattr("nnunetv2.inference.predict_from_raw_data.empty_cache", lambda device: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: torch.no_grad())
    predictor.predict_sliding_window_return_logits(torch.ones(1, 16, 16, 16))
    assert calls == [True, False]


class _PretendCuda:
    """Stands for a CUDA device where none is needed."""

    type = "cuda"


@covers("merge_files")
def test_probabilities_of_two_predictions_are_averaged_into_one_segmentation(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any], tmp_path: Path
) -> None:
    labels = plans_manager.get_label_manager(dataset_json)
    for name, logits in (("first", _logits()), ("second", 0.8 * _logits().flip(1))):
        target = str(tmp_path / name)
        upstream.export_prediction_from_logits(
            logits, _properties(), configuration, plans_manager, dataset_json, target, True
        )
    files = [str(tmp_path / f"{name}.npz") for name in ("first", "second")]
    reader = plans_manager.image_reader_writer_class()
    upstream.merge_files(files, str(tmp_path / "both"), ".nii.gz", reader, labels, False)
    read, first = (reader.read_seg(str(tmp_path / f"{name}.nii.gz"))[0] for name in ("both", "first"))
    expected = np.mean([np.load(file)["probabilities"].astype(np.float32) for file in files], axis=0).argmax(axis=0)
    assert np.array_equal(read[0], expected) and np.array_equal(read, first)
    assert not (tmp_path / "both.npz").exists()


# ---------------------------------------------------------------------------------------------- evaluation


@covers("compute_metrics")
def test_overlap_is_counted_by_region_without_the_ignored_voxels(tmp_path: Path) -> None:
    reference, prediction = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    reference[0, :2], prediction[0, 1:3] = 1, 2
    reference[1] = 3  # ignored
    prediction[1] = 1
    files = [write_volume(tmp_path / f"{n}.nii.gz", v) for n, v in (("r", reference), ("p", prediction))]
    reader = upstream.determine_reader_writer_from_dataset_json({"file_ending": ".nii.gz"}, None, verbose=False)()
    found = upstream.compute_metrics(str(files[0]), str(files[1]), reader, [1, (1, 2)], 3)
    region = found["metrics"][(1, 2)]
    assert (region["TP"], region["FP"], region["FN"], region["TN"]) == (4, 4, 4, 4)
    assert (region["Dice"], region["n_pred"], region["n_ref"]) == (0.5, 8, 8)
    assert region["IoU"] == pytest.approx(1 / 3)
    assert found["metrics"][1]["Dice"] == 0
    assert found["reference_file"] == str(files[0]) and found["prediction_file"] == str(files[1])


@covers("compute_metrics")
def test_overlap_of_two_empty_masks_is_nan(tmp_path: Path) -> None:
    empty = write_volume(tmp_path / "empty.nii.gz", np.zeros((2, 2, 2), np.uint8))
    reader = upstream.determine_reader_writer_from_dataset_json({"file_ending": ".nii.gz"}, None, verbose=False)()
    metrics = upstream.compute_metrics(str(empty), str(empty), reader, [1], None)["metrics"][1]
    assert np.isnan(metrics["Dice"]) and np.isnan(metrics["IoU"])


# ---------------------------------------------------------------------------------------------- training


@covers("ExperimentPlanner")
def test_planner_has_the_arguments_and_the_numbers_that_ours_change(nnunet: Path) -> None:
    parameters = list(inspect.signature(upstream.ExperimentPlanner.__init__).parameters)
    assert parameters[1:] == [
        "dataset_name_or_id",
        "gpu_memory_target_in_gb",
        "preprocessor_name",
        "plans_name",
        "overwrite_target_spacing",
        "suppress_transpose",
    ]
    planner = upstream.ExperimentPlanner(toy.DATASET, 1)
    assert (planner.UNet_base_num_features, planner.UNet_max_features_2d, planner.UNet_max_features_3d) == (
        32,
        512,
        320,
    )


@covers("LocalLogger")
def test_logger_keeps_one_value_an_epoch_under_keys_that_may_be_added() -> None:
    logger = upstream.LocalLogger()
    keys = {"mean_fg_dice", "ema_fg_dice", "train_losses", "val_losses", "lrs", "epoch_end_timestamps"}
    assert keys <= set(logger.my_fantastic_logging)
    logger.my_fantastic_logging["ours"] = []
    for epoch, value in enumerate((0.5, 1.0)):
        logger.log("ours", value, epoch)
    assert logger.get_value("ours", None) == [0.5, 1.0] and logger.get_value("ours", -1) == 1.0
    copy = upstream.LocalLogger()
    copy.load_checkpoint(logger.get_checkpoint())
    assert copy.get_value("ours", 1) == 1.0
    with pytest.raises(AssertionError):
        logger.log("nowhere", 1.0, 0)


@covers("MetaLogger")
def test_logger_of_the_trainer_hands_to_a_local_one_that_may_be_replaced(tmp_path: Path) -> None:
    logger = upstream.MetaLogger(str(tmp_path), False)
    assert isinstance(logger.local_logger, upstream.LocalLogger)
    logger.local_logger = upstream.LocalLogger()
    logger.local_logger.my_fantastic_logging["ours"] = []
    logger.log("ours", 0.5, 0)
    logger.log("ours", 1.0, 1)
    assert logger.get_value("ours", step=None) == [0.5, 1.0] == logger.local_logger.get_value("ours", None)


@covers("nnUNetTrainer")
def test_trainer_has_the_hooks_that_ours_override() -> None:
    trainer = upstream.nnUNetTrainer
    hooks = {
        "__init__": ["self", "plans", "configuration", "fold", "dataset_json", "device"],
        "initialize": ["self"],
        "configure_optimizers": ["self"],
        "configure_rotation_dummyDA_mirroring_and_inital_patch_size": ["self"],
        "set_deep_supervision_enabled": ["self", "enabled"],
        "do_split": ["self"],
        "get_dataloaders": ["self"],
        "on_train_start": ["self"],
        "on_train_end": ["self"],
        "on_train_epoch_start": ["self"],
        "train_step": ["self", "batch"],
        "on_train_epoch_end": ["self", "train_outputs"],
        "on_validation_epoch_start": ["self"],
        "validation_step": ["self", "batch"],
        "on_validation_epoch_end": ["self", "val_outputs"],
        "on_epoch_end": ["self"],
        "save_checkpoint": ["self", "filename"],
        "load_checkpoint": ["self", "filename_or_checkpoint"],
        "perform_actual_validation": ["self", "save_probabilities"],
    }
    assert {name: list(inspect.signature(getattr(trainer, name)).parameters) for name in hooks} == hooks
    assert isinstance(inspect.getattr_static(trainer, "build_network_architecture"), staticmethod)


@covers("nnUNetTrainer")
def test_batches_name_their_cases(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = toy.get_trainer("nnUNetTrainer")
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[0])
    assert {"data", "target", "keys"} <= set(batch)
    assert len(batch["keys"]) == 2 and set(map(str, batch["keys"])) <= set(toy.TRAINING)


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
