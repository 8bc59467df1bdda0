"""What we rely on of plans, labels, networks and trainers by their names.

Values are written down or computed here by plain NumPy, so that a red test says what has changed upstream.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nnunet_3dct import upstream
from tests import toy
from tests.upstream.covered import covers


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
