"""What a multi-task training writes into checkpoints and takes from them."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nnunet_3dct.errors import CheckpointError, OutputError
from nnunet_3dct.formats.atomic import write_file
from nnunet_3dct.formats.checkpoint import (
    FINAL,
    LATEST,
    Checkpoint,
    HeadConfig,
    check_unet_fits,
    compose_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from nnunet_3dct.formats.run_record import Averaging, RunRecord, SettingValue, StartedFrom, TrainerState
from nnunet_3dct.networks.heads import ClassificationHead
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.training.class_data import FoldLabels
from nnunet_3dct.training.class_score import ClassScore
from nnunet_3dct.upstream import nnUNetTrainer


def load_own(network: MultiTaskUNet, target: TargetLabels, checkpoint: Checkpoint) -> None:
    """Load a checkpoint of the same trainer into its network.

    Args:
        network: changed in place.
        target: of the run.
        checkpoint: to resume from, or to validate with.

    Raises:
        CheckpointError: of another network, number of classes or target.
    """
    config, source = checkpoint.head_config, checkpoint.source
    num_classes = network.cls_head.num_classes
    if config["num_classes"] != num_classes:
        raise CheckpointError(
            f"Checkpoint {source}: expected a head for {num_classes} classes, found one for "
            f"{config['num_classes']}. The class labels changed since; train anew or restore them."
        )
    labels = config["target_labels"]
    if labels is not None and list(labels) != list(target.labels):
        raise CheckpointError(
            f"Checkpoint {source}: its class is carried by the voxel labels {list(labels)}, found "
            f"{list(target.labels)}. Set NNUNETV2_MT_TARGET_LABELS={','.join(map(str, labels))}."
        )
    check_unet_fits(network.unet_state_dict(), checkpoint.unet_weights, source)
    check_unet_fits(network.cls_head.state_dict(), checkpoint.head_weights, checkpoint.head_source)
    network.load_state_dict(network.join_state_dicts(checkpoint.unet_weights, checkpoint.head_weights))


def trainer_state(trainer: nnUNetTrainer) -> TrainerState:
    """What nnU-Net's trainer saves beside the weights; called while an epoch is about to be finished."""
    scaler = trainer.grad_scaler
    return TrainerState(
        optimizer_state=trainer.optimizer.state_dict(),
        grad_scaler_state=scaler.state_dict() if scaler is not None else None,
        logging=trainer.logger.get_checkpoint(),
        _best_ema=trainer._best_ema,
        current_epoch=trainer.current_epoch + 1,
        init_args=trainer.my_init_kwargs,
        trainer_name=type(trainer).__name__,
        inference_allowed_mirroring_axes=trainer.inference_allowed_mirroring_axes,
    )


def restore_trainer(trainer: nnUNetTrainer, state: TrainerState) -> None:
    """What upstream's ``load_checkpoint`` restores beside the weights.

    Upstream's own (2.8.1) takes a dictionary by its signature, but fails for anything but a path.
    """
    trainer.my_init_kwargs = state["init_args"]
    trainer.current_epoch = state["current_epoch"]
    trainer.logger.load_checkpoint(state["logging"])
    trainer._best_ema = state["_best_ema"]
    if state["inference_allowed_mirroring_axes"] is not None:
        trainer.inference_allowed_mirroring_axes = state["inference_allowed_mirroring_axes"]
    trainer.optimizer.load_state_dict(state["optimizer_state"])
    if trainer.grad_scaler is not None and state["grad_scaler_state"] is not None:
        trainer.grad_scaler.load_state_dict(state["grad_scaler_state"])


def save(
    path: str,
    network: MultiTaskUNet,
    head: HeadConfig,
    trainer: TrainerState,
    run: RunRecord,
    averaging: Averaging | None,
) -> None:
    """Write nnU-Net's keys with the U-Net alone as ``network_weights``, and the head beside them."""
    weights = network.unet_state_dict(), network.cls_head.state_dict()
    write_checkpoint(compose_checkpoint(*weights, head, trainer, run, averaging), path)


def read(file_or_content: str | dict[str, Any], device: torch.device) -> Checkpoint:
    """A checkpoint by its path or, as nnU-Net's signature has it, by its content."""
    if isinstance(file_or_content, dict):
        return Checkpoint(file_or_content, "given")
    return read_checkpoint(file_or_content, map_location=device)


def describe_head(head: ClassificationHead, class_names: list[str] | None, target: TargetLabels) -> HeadConfig:
    """What is needed to build the head again."""
    return HeadConfig(
        name=head.name,
        num_classes=head.num_classes,
        options=head.options,
        class_names=class_names,
        target_labels=list(target.labels),
    )


def record(
    settings: dict[str, SettingValue],
    labels: FoldLabels,
    started_from: StartedFrom | None,
    best: ClassScore | None,
) -> RunRecord:
    """What a run notes about itself.

    Args:
        settings: in force, see :func:`settings_in_force`.
        labels: of the fold.
        started_from: the stage-1 checkpoint.
        best: class score so far.
    """
    return RunRecord(
        mt_num_classes=settings["NNUNETV2_MT_NUM_CLS"],  # type: ignore[typeddict-item]
        mt_loss_weight=settings["NNUNETV2_MT_LOSS_WEIGHT"],  # type: ignore[typeddict-item]
        mt_settings=settings,
        mt_labels=labels.by_part(),
        mt_started_from=started_from,
        mt_best_cls=asdict(best) if best is not None else None,
    )


def complete_folder(fold: Path) -> list[str]:
    """Put beside the final checkpoint what users of this project look for there.

    Upstream removes ``checkpoint_latest.pth`` at the end, with which our users predict; the seed's evaluation reads
    ``plans.json`` in the folder of the fold.

    Args:
        fold: output folder of the run.

    Returns:
        Warnings; a disk that is full by now costs nothing else.
    """
    copies = {fold / FINAL: fold / LATEST}
    copies |= {fold.parent / name: fold / name for name in ("plans.json", "dataset.json")}
    try:
        for source, copy in copies.items():
            if source.is_file():
                with source.open("rb") as content:
                    write_file(copy, partial(shutil.copyfileobj, content))
    except OutputError as error:
        return [f"WARNING: {error}"]
    return []
