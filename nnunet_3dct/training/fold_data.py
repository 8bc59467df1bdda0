"""The cases of a fold as a multi-task training draws and weighs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch import distributed as dist

from nnunet_3dct.training import class_data
from nnunet_3dct.training.class_loss import as_tensor, class_weights
from nnunet_3dct.training.target_patches import TargetPatches, location_keys
from nnunet_3dct.upstream import infer_dataset_class

if TYPE_CHECKING:
    from nnunet_3dct.training.trainer import MultiTaskTrainer


def write_missing_splits(trainer: MultiTaskTrainer) -> None:
    """Stratify by class where nnU-Net would draw splits at random; one process does, the others wait for it."""
    if trainer.fold != "all" and trainer.local_rank == 0:
        folder = trainer.preprocessed_dataset_folder
        cases = list(infer_dataset_class(folder).get_identifiers(folder))
        base = Path(trainer.preprocessed_dataset_folder_base)
        trainer.say(class_data.write_missing_splits(base, cases, trainer.class_labels))
    if trainer.is_ddp:  # whether the file is there or not: every process meets here
        dist.barrier()


def weigh_classes(trainer: MultiTaskTrainer) -> Tensor | None:
    """Weight of each class in the loss ``(C,)``, None for equal ones; logs it and how the classes are spread."""
    weighting, counts = trainer.preflight.weighting, trainer.fold_labels.counts(trainer.num_classes)
    trainer.say(
        f"Cases in each class: {counts}; class weights: {weighting.patches}, lambda = {trainer.full_loss_weight}, "
        f"labels that carry the class: {list(trainer.target_labels.labels)}"
    )
    trainer.say(weighting.remark, *class_data.missing_classes(trainer.fold, counts))
    return as_tensor(class_weights(weighting.patches, counts["training"]), trainer.device)


def as_drawn(trainer: MultiTaskTrainer, training: Any) -> Any:
    """nnU-Net's dataset of the training cases with the sampler and the centring that were asked for.

    Args:
        trainer: of the fold.
        training: changed in place.
    """
    if trainer.settings.sampler == "balanced":
        training.identifiers = class_data.balanced_identifiers(training.identifiers, trainer.class_labels.by_case)
    if not trainer.settings.target_patches:
        return training
    keys = location_keys(trainer.target_labels, trainer.label_manager)
    return TargetPatches(training, class_data.known(trainer.class_labels.by_case), keys, trainer.oversampling)
