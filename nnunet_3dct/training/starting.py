"""Starting from a stage-1 checkpoint: what of it fits, and what the log says about it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_3dct.errors import CheckpointError, listing
from nnunet_3dct.formats.checkpoint import Checkpoint, State, check_unet_fits
from nnunet_3dct.formats.pretrained import read_pretrained
from nnunet_3dct.formats.run_record import StartedFrom
from nnunet_3dct.networks.matching import MatchedWeights, match_weights
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.settings import PRE_CHECKPOINT_PATH

if TYPE_CHECKING:
    from nnunet_3dct.training.trainer import MultiTaskTrainer


def start_from_checkpoint(trainer: MultiTaskTrainer) -> StartedFrom:
    """Load what fits of the stage-1 checkpoint into the network of a training that begins, and log what that is.

    Raises:
        CheckpointError: no path, or a file that is unreadable or whose encoder is another one.
    """
    path, name = trainer.settings.pre_checkpoint_path, type(trainer).__name__
    checkpoint, matched = load_start(trainer.multitask_network, trainer.head_name, path, name)
    noted, lines = describe_start(checkpoint, matched, trainer.fold, trainer.plans_manager.dataset_name)
    trainer.say(*lines, never_trained(matched.left_out, trainer.frozen_parts))
    return noted


def load_start(
    network: MultiTaskUNet, head_name: str, path: Path | None, trainer: str
) -> tuple[Checkpoint, MatchedWeights]:
    """Load what fits of a stage-1 checkpoint into a new network, and its head if it has one of the same kind.

    A head of another network, of which only a part fits, says nothing here and stays out.

    Args:
        network: changed in place.
        head_name: of its head.
        path: of the checkpoint.
        trainer: its name, for the message.

    Returns:
        The checkpoint, and what of it fits.

    Raises:
        CheckpointError: no path, or a file that is unreadable or whose encoder is another one.
    """
    if path is None:
        raise CheckpointError(
            f"{PRE_CHECKPOINT_PATH}: {trainer} starts from a stage-1 checkpoint, expected "
            "its path, found the variable not set. To go on with a begun training add --c."
        )
    checkpoint = read_pretrained(path)
    matched = match_weights(network.unet_state_dict(), checkpoint.unet_weights, checkpoint.source)
    head: State = {}
    if matched.complete and checkpoint.has_head and checkpoint.head_config["name"] == head_name:
        head = checkpoint.head_weights
        check_unet_fits(network.cls_head.state_dict(), head, checkpoint.head_source)
    network.load_state_dict(network.join_state_dicts(matched.weights, head), strict=False)
    return checkpoint, matched


def describe_start(
    checkpoint: Checkpoint, matched: MatchedWeights, fold: int | str, dataset: str
) -> tuple[StartedFrom, list[str]]:
    """What a run notes of the checkpoint that it starts from, and what the log says about it.

    Args:
        checkpoint: of stage 1.
        matched: what of it fits.
        fold, dataset: of the run.
    """
    epoch = "unknown" if checkpoint.epoch is None else checkpoint.epoch
    lines = [f"Starting from {checkpoint.source} (epoch {epoch})."]
    noted = StartedFrom(path=checkpoint.source, fold=checkpoint.fold)
    if checkpoint.dataset not in (None, dataset):  # whose folds are other ones
        noted["dataset"] = str(checkpoint.dataset)
        lines.append(f"It was trained on {checkpoint.dataset}.")
    elif str(checkpoint.fold) != str(fold):
        lines.append(
            f"WARNING: {checkpoint.source} is of fold {checkpoint.fold}, this run of fold {fold}. If both share their "
            "splits, that network has seen validation cases of this fold, whose scores are then too good."
        )
    if matched.left_out:
        noted["left_out"] = list(matched.left_out)
    if checkpoint.has_head and not matched.complete:
        lines.append("Its class head is left out, as it belongs to the other network.")
    return noted, [*lines, *matched.describe()]


def never_trained(left_out: Collection[str], frozen_parts: Collection[str]) -> str | None:
    """A warning if a start lacks weights of a part of the U-Net that is not trained.

    Args:
        left_out: parameters of the network that the start has no weights for.
        frozen_parts: of the trainer.
    """
    lost = [name for name in left_out if name.partition(".")[0] in frozen_parts]
    if not lost:
        return None
    return (
        f"WARNING: {listing(sorted(frozen_parts))} is not trained by this trainer, and {len(lost)} of its parameters "
        "are left out of the checkpoint: they stay random, and so does the segmentation. Use another trainer."
    )
