"""What goes into the network and what comes out of it is nnU-Net's, on its own files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_3dct.inference import preprocessing, resampling
from nnunet_3dct.inference.preprocessing import preprocess, segmentation_from_logits

CPU = torch.device("cpu")
USUAL = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}

TORCH, BY_TORCH = "resample_torch_fornnunet", {"is_seg": False, "force_separate_z": False}


def plans(**changes: Any) -> PlansManager:
    """nnU-Net's plans with a 2D and a 3D configuration."""
    shared = {
        "data_identifier": "x", "architecture": {}, "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"], "use_mask_for_norm": [False, False],
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": USUAL,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**USUAL, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**USUAL, "order": 1},
        **changes,
    }  # fmt: skip
    intensities = {"mean": 60.0, "std": 35.0, "percentile_00_5": -80.0, "percentile_99_5": 210.0}
    return PlansManager(
        {
            "dataset_name": "Dataset001_X",
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [1, 0, 2],
            "transpose_backward": [1, 0, 2],
            "label_manager": "LabelManager",
            "experiment_planner_used": "ExperimentPlanner",
            "foreground_intensity_properties_per_channel": {"0": intensities, "1": intensities},
            "configurations": {
                "2d": {**shared, "spacing": [0.8, 1.1], "patch_size": [16, 16]},
                "3d_fullres": {**shared, "spacing": [1.7, 0.8, 1.1], "patch_size": [16, 16, 16]},
            },
        }
    )


def image() -> np.ndarray:
    """Two channels, an empty margin, zeros inside."""
    data = np.zeros((2, 14, 26, 30), np.float32)
    data[:, 2:12, 3:, :27] = np.random.default_rng(0).normal(60, 60, (2, 10, 23, 27))
    data[:, 5:7, 8:10, 8:10] = 0
    data[1, 2] = 0
    return data


SPACINGS = {"fine": (1.0, 1.2, 0.7), "thick slices": (1.0, 4.0, 0.7), "the network's own": (0.8, 1.7, 1.1)}
CHANGES: dict[str, dict[str, Any]] = {
    "usual": {},
    "order 1": {"resampling_fn_data_kwargs": {**USUAL, "order": 1}},
    "never separate": {"resampling_fn_data_kwargs": {**USUAL, "force_separate_z": False}},
    "order 1 across slices": {"resampling_fn_data_kwargs": {**USUAL, "order_z": 1}},
    "mask for normalisation": {"use_mask_for_norm": [True, False]},
    "by torch": {
        "resampling_fn_data": TORCH, "resampling_fn_data_kwargs": BY_TORCH,
        "resampling_fn_seg": TORCH, "resampling_fn_seg_kwargs": {**BY_TORCH, "is_seg": True},
    },
}  # fmt: skip


@pytest.mark.parametrize("configuration_name", ["2d", "3d_fullres"])
@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_preprocessed_image_is_that_of_nnunet(configuration_name: str, spacing: Any, changes: dict[str, Any]) -> None:
    manager = plans(**copy.deepcopy(changes))
    configuration = manager.get_configuration(configuration_name)
    expected_properties, properties = {"spacing": list(spacing)}, {"spacing": list(spacing)}
    expected, _, _ = configuration.preprocessor_class(verbose=False).run_case_npy(
        image(), None, expected_properties, manager, configuration, {}
    )
    given = image()
    found = preprocess(given, properties, manager, configuration, {}, CPU)
    assert found.dtype == torch.float32 and found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert properties == expected_properties
    np.testing.assert_array_equal(given, image())  # the input is left as it was


LABELS = {
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "regions": {"background": 0, "whole": [1, 2], "lesion": 2},
    "labels and ignored": {"background": 0, "organ": 1, "lesion": 2, "ignore": 3},
}


@pytest.mark.parametrize("configuration_name", ["2d", "3d_fullres"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("resampled_by", ["order 1", "order 1 across slices", "torch"])
@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
def test_labels_are_those_of_nnunet(
    configuration_name: str, labels: Any, resampled_by: str, spacing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {
        "order 1": {},
        "order 1 across slices": {"resampling_fn_probabilities_kwargs": {**USUAL, "order": 1, "order_z": 1}},
        "torch": {"resampling_fn_probabilities": TORCH, "resampling_fn_probabilities_kwargs": BY_TORCH},
    }[resampled_by]
    manager = plans(**changes)
    configuration = manager.get_configuration(configuration_name)
    dataset_json = {"labels": labels, "regions_class_order": [1, 2], "channel_names": {"0": "CT", "1": "CT"}}
    label_manager = manager.get_label_manager(dataset_json)
    properties: dict[str, Any] = {"spacing": list(spacing)}
    shape = preprocess(image(), properties, manager, configuration, dataset_json, CPU).shape[1:]
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(label_manager.num_segmentation_heads, *shape, generator=generator)).half()
    expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.clone(), manager, configuration, label_manager, properties, num_threads_torch=torch.get_num_threads()
    )
    monkeypatch.setattr(resampling, "SLAB_VOXELS", 7000)
    found = segmentation_from_logits(logits, properties, manager, configuration, label_manager)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert np.mean(found == expected) > 0.9995  # noise: many near-ties, float32 against float64
    assert set(np.unique(found)) == set(np.unique(expected))


def test_shortage_of_memory_on_the_device_goes_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = plans()
    configuration = manager.get_configuration("3d_fullres")
    dataset_json = {"labels": LABELS["labels"], "channel_names": {"0": "CT", "1": "CT"}}
    label_manager = manager.get_label_manager(dataset_json)
    properties: dict[str, Any] = {"spacing": [1.0, 1.2, 0.7]}
    data = preprocess(image(), copy.deepcopy(properties), manager, configuration, dataset_json, CPU)
    monkeypatch.setattr(preprocessing, "resample", once_out_of_memory(preprocessing.resample))
    assert torch.equal(preprocess(image(), properties, manager, configuration, dataset_json, CPU), data)

    logits = torch.randn(3, *data.shape[1:], generator=torch.Generator().manual_seed(0)).half()
    expected = segmentation_from_logits(logits, properties, manager, configuration, label_manager)
    monkeypatch.setattr(preprocessing, "resample_in_slabs", once_out_of_memory(preprocessing.resample_in_slabs))
    found = segmentation_from_logits(logits, properties, manager, configuration, label_manager)
    np.testing.assert_array_equal(found, expected)


def once_out_of_memory(function: Callable[..., Any]) -> Callable[..., Any]:
    """Fails at the first call as a full GPU does."""
    calls: list[None] = []

    def wrapped(*args: Any) -> Any:
        calls.append(None)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no room")
        return function(*args)

    return wrapped
