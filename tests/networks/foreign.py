"""Checkpoints of another training: other plans, labels and channels than the toys', in the forms that go around."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from tests import toy

DATASET = "Dataset291_TotalSegmentator_part1_organs_1559subj"
WIDTHS = [3, 5, 6, 7]
STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [3, 2, 2]]
CONFIGURATION = "3d_fullres"


def plans(toy_root: Path, name: str = toy.PLANS) -> dict[str, Any]:
    """The toys' plans with a deeper, thinner network of other strides.

    The toys' patches do not divide by them, unless the encoder is a residual one: nnU-Net's own then fails.
    """
    content = json.loads((toy_root / "preprocessed" / toy.DATASET / f"{name}.json").read_text())
    content["dataset_name"] = DATASET
    for configuration, dim in ((CONFIGURATION, 3), ("2d", 2)):
        kwargs = content["configurations"][configuration]["architecture"]["arch_kwargs"]
        kwargs |= {
            "n_stages": len(WIDTHS),
            "features_per_stage": WIDTHS,
            "kernel_sizes": [[1, 3, 3][-dim:], *[[3] * dim] * 3],
            "strides": [stride[-dim:] for stride in STRIDES],
            "n_conv_per_stage_decoder": [1] * 3,
        }
        if "n_blocks_per_stage" in kwargs:
            kwargs["strides"] = [*kwargs["strides"][:3], [2] * dim]
        key = "n_blocks_per_stage" if "n_blocks_per_stage" in kwargs else "n_conv_per_stage"
        kwargs[key] = [1, 2, 1, 1]
    return content


def old_format(content: dict[str, Any]) -> dict[str, Any]:
    """Plans as nnU-Net wrote them in 2023, when TotalSegmentator's networks were trained."""
    content = deepcopy(content)
    configuration = content["configurations"][CONFIGURATION]
    kwargs = configuration.pop("architecture")["arch_kwargs"]
    configuration |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": kwargs["n_conv_per_stage"],
        "n_conv_per_stage_decoder": kwargs["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [2, 3, 3],
        "pool_op_kernel_sizes": kwargs["strides"],
        "conv_kernel_sizes": kwargs["kernel_sizes"],
    }
    content["configurations"] = {CONFIGURATION: configuration}
    return content


def network(
    content: dict[str, Any], channels: int = 1, labels: int = 25, configuration: str = CONFIGURATION, seed: int = 5
) -> Any:
    """By nnU-Net's own functions."""
    torch.manual_seed(seed)
    manager = PlansManager(deepcopy(content))
    return nnUNetTrainer.build_network_architecture(manager, manager.get_configuration(configuration), channels, labels)


def checkpoint(content: dict[str, Any], configuration: str = CONFIGURATION, **options: Any) -> dict[str, Any]:
    """Content of nnU-Net's file."""
    return {
        "network_weights": network(content, configuration=configuration, **options).state_dict(),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "current_epoch": 8000,
        "init_args": {
            "plans": content,
            "configuration": configuration,
            "fold": 0,
            "dataset_json": {"channel_names": {"0": "CT"}},
            "unpack_dataset": True,
            "device": torch.device("cuda"),
        },
        "trainer_name": "nnUNetTrainerNoMirroring",
        "inference_allowed_mirroring_axes": None,
    }


def results_folder(results: Path, content: dict[str, Any]) -> Path:
    """nnU-Net's folder of a trained model, as TotalSegmentator ships them."""
    folder = results / DATASET / "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0}}))
    torch.save(checkpoint(content), folder / "fold_0" / "checkpoint_final.pth")
    return folder
