"""What is checked before a run makes its first folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_3dct.data.splits import read_splits, require_fold
from nnunet_3dct.errors import CheckpointError, SettingsError, listing
from nnunet_3dct.formats.checkpoint import HeadConfig
from nnunet_3dct.formats.class_labels import ClassLabels, check_class_names, read_dataset_labels, require_class_labels
from nnunet_3dct.formats.clinical import ClinicalTable, read_dataset_clinical, require_clinical_table
from nnunet_3dct.formats.pretrained import read_pretrained
from nnunet_3dct.networks.matching import match_weights
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.paths import RESULTS, SPLITS_FILE, labels_folders, splits_path
from nnunet_3dct.settings import PRE_CHECKPOINT_PATH, Settings
from nnunet_3dct.training.class_data import ClassWeighting, choose_class_weights
from nnunet_3dct.training.class_loss import class_weights
from nnunet_3dct.upstream import PlansManager, determine_num_input_channels, infer_dataset_class, nnUNetTrainer

MPS_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"


@dataclass(frozen=True)
class Choices:
    """What a trainer has chosen.

    Attributes:
        head_name: of its head.
        class_weights: its own.
        starts_from_checkpoint: whether it loads a stage-1 checkpoint.
        has_gradient_option, has_standardize_option: whether its head takes ``gradient`` and ``standardize``.
    """

    head_name: str
    class_weights: str
    starts_from_checkpoint: bool
    has_gradient_option: bool
    has_standardize_option: bool = False


@dataclass(frozen=True)
class Preflight:
    """What a multi-task training was found to work with.

    Attributes:
        class_labels: of all cases, and the file they were read from.
        num_classes: of the head.
        target: voxel labels that carry the class.
        weighting: class weights.
        starts_from_checkpoint: whether a stage-1 checkpoint is loaded.
        head_options: of the head in that checkpoint, if it has one of the same kind.
        doubts: about the splits and the covariates, for the log.
        clinical: covariates of the cases, None without a table.
    """

    class_labels: ClassLabels
    num_classes: int
    target: TargetLabels
    weighting: ClassWeighting
    starts_from_checkpoint: bool
    head_options: dict[str, Any] | None
    doubts: list[str]
    clinical: ClinicalTable | None = None


def check_before_start(
    trainer: type[nnUNetTrainer],
    plans: dict[str, Any],
    configuration: str,
    fold: int | str,
    dataset_json: dict[str, Any],
    device: torch.device,
    settings: Settings,
    choices: Choices,
) -> Preflight:
    """Check everything that can be wrong with settings, splits, labels and the stage-1 checkpoint.

    Args:
        trainer: builds the network.
        plans, configuration, fold, dataset_json, device: as nnU-Net gives them to the trainer.
        settings: of the environment.
        choices: of the trainer.

    Raises:
        SettingsError, ClassLabelsError, CheckpointError: in this order.
    """
    require_mps_fallback(device)
    if settings.gradient is not None and not choices.has_gradient_option:
        raise SettingsError(
            f"NNUNETV2_MT_GRADIENT={settings.gradient}: expected a trainer whose head has that option "
            f"(nnUNetTrainer_CLSHeadLesion), found {trainer.__name__}. Unset it, or use that trainer."
        )
    if settings.standardize is not None and not choices.has_standardize_option:
        raise SettingsError(
            f"NNUNETV2_MT_STANDARDIZE={settings.standardize}: expected a trainer of a published head "
            f"(CLSHeadSum, SumFT, Simple, SepOpt, MA), found {trainer.__name__}. Unset it, or use one of those."
        )
    doubts = check_splits_of_run(plans, configuration, fold)
    class_labels = read_class_labels(plans, configuration, fold, settings)
    num_classes = settings.num_cls or class_labels.num_classes
    check_class_names(dataset_json.get("class_names"), num_classes, "dataset.json")
    clinical = read_covariates(PlansManager(plans).dataset_name, class_labels)
    if clinical is not None and (without := clinical.without_row(class_labels.by_case)):
        doubts.append(f"{clinical.source}: no row for {listing(without)}; their covariates count as missing.")
    target = TargetLabels(PlansManager(plans).get_label_manager(dataset_json), settings.target_labels)
    weighting = choose_class_weights(settings, choices.class_weights)
    class_weights(weighting.patches, [1] * num_classes)  # as many as there are classes
    start = None
    if choices.starts_from_checkpoint:
        results = os.environ.get(RESULTS)
        model = f"{trainer.__name__}__{plans['plans_name']}__{configuration}"
        output = Path(results, plans["dataset_name"], model, f"fold_{fold}") if results else None
        expected = unet_state(trainer, PlansManager(plans), configuration, dataset_json)
        start = check_pre_checkpoint(settings, trainer.__name__, num_classes, expected, output)
    options = start["options"] if start is not None and start["name"] == choices.head_name else None
    if options is not None:
        require_same_standardization(settings, options)
    return Preflight(
        class_labels, num_classes, target, weighting, choices.starts_from_checkpoint, options, doubts, clinical
    )


def require_same_standardization(settings: Settings, options: Mapping[str, Any]) -> None:
    """A head that training goes on with was trained on standardised features, or on raw ones.

    Args:
        settings: what was asked for.
        options: of the head in the checkpoint that training starts from.

    Raises:
        SettingsError: the other one was asked for.
    """
    found = "on" if options.get("standardize") else "off"
    if settings.standardize not in (None, found):
        raise SettingsError(
            f"NNUNETV2_MT_STANDARDIZE={settings.standardize}: expected {found}, with which the head in "
            f"{settings.pre_checkpoint_path} was trained. Unset it, or start from a stage-1 checkpoint."
        )


def read_covariates(dataset: str, labels: ClassLabels) -> ClinicalTable | None:
    """Covariates of the cases, None if there is no table.

    Args:
        dataset: its full name.
        labels: class of every case; images without a label may have a row too.

    Raises:
        SettingsError: rows of unknown cases, or a column that is the class under another name.
    """
    table = read_dataset_clinical(dataset)
    if table is not None:
        raw = [folder / part for folder in labels_folders(dataset) for part in ("imagesTs", "imagesVal")]
        files = [path.name for folder in raw if folder.is_dir() for path in folder.iterdir()]
        others = [case for case in table.by_case if any(name.startswith((f"{case}_", f"{case}.")) for name in files)]
        require_clinical_table(table, {*labels.by_case, *others}, labels.by_case)
    return table


def require_mps_fallback(device: torch.device) -> None:
    """Training on MPS needs the CPU for what MPS lacks, such as 3D pooling.

    torch reads the variable when it is imported, which nnU-Net does before any trainer exists: it cannot be set here.

    Raises:
        SettingsError: it is not set.
    """
    if device.type == "mps" and os.environ.get(MPS_FALLBACK, "0") in ("", "0"):
        raise SettingsError(
            f"{MPS_FALLBACK}: expected 1 for training on MPS, where some layers have to run on the CPU, found it not "
            f"set. export {MPS_FALLBACK}=1 and start again."
        )


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
    doubts = require_fold(path, splits, int(fold), cases, groups)
    return [f"WARNING: {SPLITS_FILE}: {doubt}." for doubt in doubts]


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
) -> HeadConfig | None:
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
        The description of the head that the checkpoint holds; None without one, when none is needed, or when only a
        part of its network fits.

    Raises:
        CheckpointError: the variable is not set, or its file is missing, unreadable, has another encoder, or belongs
            to this network and holds a head for another number of classes.
    """
    path = settings.pre_checkpoint_path
    has_run = output_folder is not None and any(output_folder.glob("checkpoint_*.pth"))
    if has_run and (path is None or not path.exists()):
        return None
    if path is None:
        raise CheckpointError(
            f"{PRE_CHECKPOINT_PATH}: {trainer} starts from a stage-1 checkpoint, expected its path, "
            "found the variable not set. Train stage 1 (nnUNetv2_train ... without -tr) and export the path "
            "of its checkpoint_best.pth."
        )
    checkpoint = read_pretrained(path, mmap=True)
    matched = match_weights(expected_unet, checkpoint.unet_weights, checkpoint.source)
    if not matched.complete or not checkpoint.has_head:
        return None
    config = checkpoint.head_config
    if config["num_classes"] != num_classes:
        raise CheckpointError(
            f"{PRE_CHECKPOINT_PATH}={path}: expected a head for {num_classes} classes, found one for "
            f"{config['num_classes']}. Use a stage-1 checkpoint, or one that was trained with the same classes."
        )
    return config
