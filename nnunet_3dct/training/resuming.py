"""Going on with a training: what has to be as it was, and what must not be lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.checkpoint import CLASS_BEST, Checkpoint, read_checkpoint
from nnunet_3dct.formats.run_record import RunRecord, SettingValue
from nnunet_3dct.settings import PRE_CHECKPOINT_PATH
from nnunet_3dct.training.class_data import FoldLabels
from nnunet_3dct.training.class_score import ClassScore

if TYPE_CHECKING:
    from nnunet_3dct.training.trainer import MultiTaskTrainer

MOST_LISTED = 20


def best_class_score(checkpoint: Checkpoint, output_folder: Path) -> ClassScore | None:
    """The best class score that a resumed run has to beat.

    The checkpoint that it resumes from may be older than the best one: nnU-Net writes ``checkpoint_latest.pth`` every
    fifty epochs. The better of the two counts, so that the best checkpoint is not overwritten by a lesser one.

    Args:
        checkpoint: that the run resumes from.
        output_folder: of the run.
    """
    stored = [checkpoint]
    path = output_folder / CLASS_BEST
    if path.is_file():
        try:
            best = read_checkpoint(path, mmap=True)
        except CheckpointError:  # nothing that could be lost
            best = None
        if best is not None and best.labels == checkpoint.labels:  # else its score is of other cases
            stored.append(best)
    scores = [ClassScore(**found.best_class_score) for found in stored if found.best_class_score]  # type: ignore[arg-type]
    score: ClassScore | None = None
    for each in scores:
        score = each if each.better_than(score) else score
    return score


def settings_in_force(trainer: MultiTaskTrainer) -> dict[str, SettingValue]:
    """What decides the course of a training, by the variable that sets it."""
    settings, class_weights = trainer.settings, trainer.preflight.weighting.patches
    axes = settings.mirror_axes
    if axes is None:
        axes = tuple(range(len(trainer.configuration_manager.patch_size)))
    return {
        "NNUNETV2_MT_NUM_CLS": trainer.num_classes,
        "NNUNETV2_MT_LOSS_WEIGHT": trainer.full_loss_weight,
        "NNUNETV2_MT_GRADIENT": trainer.gradient,
        "NNUNETV2_MT_STANDARDIZE": settings.standardize or trainer.standardize,
        "NNUNETV2_MT_LOSS_WARMUP": settings.loss_warmup,
        "NNUNETV2_MT_EPOCHS": trainer.num_epochs,
        "NNUNETV2_MT_ITERS_PER_EPOCH": trainer.num_iterations_per_epoch,
        "NNUNETV2_MT_VAL_ITERS": trainer.num_val_iterations_per_epoch,
        "NNUNETV2_MT_LR": trainer.initial_lr,
        "NNUNETV2_MT_CLASS_WEIGHTS": class_weights if isinstance(class_weights, str) else list(class_weights),
        "NNUNETV2_MT_LABEL_SMOOTHING": trainer.class_smoothing,
        "NNUNETV2_MT_FOCAL_GAMMA": settings.focal_gamma,
        "NNUNETV2_MT_SAMPLER": settings.sampler,
        "NNUNETV2_MT_TARGET_PATCHES": settings.target_patches,
        "NNUNETV2_MT_SEED": settings.seed,
        "NNUNETV2_MT_TARGET_LABELS": list(trainer.target_labels.labels),
        "NNUNETV2_MT_INTENSITY_AUG": settings.intensity_aug,
        "NNUNETV2_MT_MIRROR_AXES": ",".join(map(str, axes)) or "none",
        "NNUNETV2_MT_EMA": settings.ema,
        "NNUNETV2_MT_CLS_VAL_EVERY": settings.cls_val_every,
    }


def check_unchanged(
    saved: RunRecord, settings: Mapping[str, SettingValue], labels: FoldLabels, output_folder: str, can_start: bool
) -> None:
    """A resumed training goes on with the settings and labels that it began with.

    Args:
        saved: of the checkpoint that it resumes from.
        settings, labels: of now.
        output_folder: of the run, for the message.
        can_start: whether its trainer can start from a checkpoint, as a remedy.

    Raises:
        CheckpointError: lists what differs.
    """
    problems = [
        f"{name}: expected {saved['mt_settings'][name]}, found {value}"
        for name, value in settings.items()
        if name in saved["mt_settings"] and saved["mt_settings"][name] != value
    ]
    if saved["mt_labels"]:
        expected, found = _in_words(saved["mt_labels"]), _in_words(labels.by_part())
        problems += [
            f"{case}: expected {expected.get(case, 'nothing, it was not in this fold')}, "
            f"found {found.get(case, 'nothing, it is not in this fold')}"
            for case in sorted({*expected, *found})
            if expected.get(case) != found.get(case)
        ]
    if problems:
        rest = len(problems) - MOST_LISTED
        anew = f" and {PRE_CHECKPOINT_PATH} set to this run's checkpoint" if can_start else ""
        raise CheckpointError(
            f"{output_folder}: training cannot be resumed, {len(problems)} settings or labels differ from "
            f"those it began with. Restore them, or train anew with another nnUNet_results{anew}:\n  "
            + "\n  ".join(problems[:MOST_LISTED])
            + (f"\n  and {rest} more" if rest > 0 else "")
        )


def _in_words(labels: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """Part and class of each case; a case of fold ``all`` is in both parts."""
    words: dict[str, str] = {}
    for part, classes in labels.items():
        for case, label in classes.items():
            words[case] = f"{words[case]} and {part}" if case in words else f"class {label} for {part}"
    return words
