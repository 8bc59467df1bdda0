"""What is checked before a run makes its first folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_3dct.data.splits import read_splits, require_fold
from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.checkpoint import HEAD_STATE, check_unet_fits, head_config, read_checkpoint
from nnunet_3dct.formats.class_labels import ClassLabels, read_dataset_labels, require_class_labels
from nnunet_3dct.paths import splits_path
from nnunet_3dct.settings import PRE_CHECKPOINT_PATH, Settings
from nnunet_3dct.upstream import PlansManager, determine_num_input_channels, infer_dataset_class, nnUNetTrainer


def read_class_labels(plans: dict[str, Any], configuration: str, fold: int | str, settings: Settings) -> ClassLabels:
    """Find, read and check the class labels of all cases that the fold uses.

    They are looked for beside the preprocessed, then the raw dataset.

    Raises:
        ClassLabelsError: lists everything that is wrong.
    """
    plans_manager = PlansManager(plans)
    labels = read_dataset_labels(plans_manager.dataset_name)
    require_class_labels(labels, _cases_of_fold(plans_manager, configuration, fold), settings.num_cls)
    return labels


def _cases_of_fold(plans_manager: PlansManager, configuration: str, fold: int | str) -> list[str]:
    path = splits_path(plans_manager.dataset_name)
    if fold != "all" and path.is_file():
        splits = read_splits(path)
        if int(fold) < len(splits):
            return [*splits[int(fold)]["train"], *splits[int(fold)]["val"]]
    folder = str(path.parent / plans_manager.get_configuration(configuration).data_identifier)
    return list(infer_dataset_class(folder).get_identifiers(folder))


def check_splits_of_run(plans: dict[str, Any], configuration: str, fold: int | str) -> list[str]:
    """Compare the fold with the preprocessed cases; returns one line for each doubt about it.

    Raises:
        SettingsError: ``splits_final.json`` is malformed, or the fold names cases that were not preprocessed.
    """
    plans_manager = PlansManager(plans)
    path = splits_path(plans_manager.dataset_name)
    if fold == "all" or not path.is_file():
        return []
    splits = read_splits(path)
    if int(fold) >= len(splits):  # nnU-Net draws a split of its own and says so
        return []
    folder = str(path.parent / plans_manager.get_configuration(configuration).data_identifier)
    cases = [str(case) for case in infer_dataset_class(folder).get_identifiers(folder)]
    groups = read_dataset_labels(plans_manager.dataset_name).groups
    return require_fold(path, splits, int(fold), cases, groups)


def unet_state(
    trainer: type[nnUNetTrainer], plans_manager: PlansManager, configuration: str, dataset_json: dict
) -> dict[str, Tensor]:
    """Names and shapes of the parameters of a trainer's U-Net, as tensors without memory."""
    configuration_manager = plans_manager.get_configuration(configuration)
    channels = determine_num_input_channels(plans_manager, configuration_manager, dataset_json)
    outputs = plans_manager.get_label_manager(dataset_json).num_segmentation_heads
    with torch.device("meta"):
        unet = trainer.build_network_architecture(plans_manager, configuration_manager, channels, outputs)
    return unet.state_dict()


def check_pre_checkpoint(
    settings: Settings,
    trainer: str,
    num_classes: int,
    expected_unet: Mapping[str, Tensor],
    output_folder: Path | None,
) -> dict[str, Any] | None:
    """Check the stage-1 checkpoint of a fine-tuning run while nothing has been written yet.

    A run that resumes or only validates finds checkpoints in ``output_folder`` and may do without; should such
    a run start anew after all, the checkpoint is missed when it is loaded.

    Args:
        settings: with the path of the checkpoint.
        trainer: its name, for the message.
        num_classes: of the head that will be trained.
        expected_unet: names and shapes of the U-Net's parameters; meta tensors will do.
        output_folder: of the run, None when ``nnUNet_results`` is not set.

    Returns:
        The description of the head that the checkpoint holds; None without one, or when none is needed.

    Raises:
        CheckpointError: the variable is not set, or its file is missing, unreadable, belongs to another
            network, or holds a head for another number of classes.
    """
    path = settings.pre_checkpoint_path
    has_run = output_folder is not None and any(output_folder.glob("checkpoint_*.pth"))
    if has_run and (path is None or not path.is_file()):
        return None
    if path is None:
        raise CheckpointError(
            f"{PRE_CHECKPOINT_PATH}: {trainer} starts from a stage-1 checkpoint, expected its path, "
            "found the variable not set. Train stage 1 (nnUNetv2_train ... without -tr) and export the path "
            "of its checkpoint_best.pth."
        )
    checkpoint = read_checkpoint(path)
    check_unet_fits(expected_unet, checkpoint["network_weights"], str(path))
    if HEAD_STATE not in checkpoint:
        return None
    config = head_config(checkpoint, str(path))
    if config["num_classes"] != num_classes:
        raise CheckpointError(
            f"{PRE_CHECKPOINT_PATH}={path}: expected a head for {num_classes} classes, found one for "
            f"{config['num_classes']}. Use a stage-1 checkpoint, or one that was trained with the same classes."
        )
    return config
