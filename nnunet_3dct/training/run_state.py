"""What the multi-task trainers write into checkpoints and read from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.checkpoint import (
    HEAD_CONFIG,
    HEAD_STATE,
    check_unet_fits,
    head_config,
    read_checkpoint,
    write_checkpoint,
)
from nnunet_3dct.settings import PRE_CHECKPOINT_PATH
from nnunet_3dct.training.class_validation import ClassScore

if TYPE_CHECKING:
    from nnunet_3dct.upstream import nnUNetTrainer

    _Base: type = nnUNetTrainer
else:
    _Base = object


class MultiTaskCheckpoints(_Base):
    """Mixin of :class:`~nnunet_3dct.training.trainer.MultiTaskTrainer`."""

    _started_from: dict[str, Any] | None = None  # path and fold of the stage-1 checkpoint

    def _load_pre_checkpoint(self) -> None:
        path = self.settings.pre_checkpoint_path
        if path is None:
            raise CheckpointError(
                f"{PRE_CHECKPOINT_PATH}: {type(self).__name__} starts from a stage-1 checkpoint, expected "
                "its path, found the variable not set. To go on with a begun training add --c."
            )
        checkpoint = read_checkpoint(path)
        network = self.multitask_network
        check_unet_fits(network.unet_state_dict(), checkpoint["network_weights"], str(path))
        head = dict(network.cls_head.state_dict())
        if HEAD_STATE in checkpoint and head_config(checkpoint, str(path))["name"] == self.head_name:
            check_unet_fits(head, checkpoint[HEAD_STATE], f"{path} ({HEAD_STATE})")
            head = checkpoint[HEAD_STATE]
        network.load_state_dict(network.join_state_dicts(checkpoint["network_weights"], head))
        self.print_to_log_file(f"Starting from {path} (epoch {checkpoint.get('current_epoch', 'unknown')}).")
        fold = checkpoint.get("init_args", {}).get("fold")
        self._started_from = {"path": str(path), "fold": fold}
        if str(fold) != str(self.fold):
            self.print_to_log_file(
                f"WARNING: {path} is of fold {fold}, this run of fold {self.fold}. If both share their splits, that "
                "network has seen validation cases of this fold, whose scores are then too good."
            )

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's keys with the U-Net alone as ``network_weights``, and the head beside them."""
        if self.local_rank != 0:
            return
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        network = self.multitask_network
        checkpoint = {
            "network_weights": network.unet_state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            HEAD_STATE: network.cls_head.state_dict(),
            HEAD_CONFIG: {
                "name": self.head_name,
                "num_classes": self.num_classes,
                "options": network.cls_head.options,
                "class_names": self.dataset_json.get("class_names"),
                "target_labels": list(self.target_labels.labels),
            },
            "mt_num_classes": self.num_classes,
            "mt_loss_weight": self.settings.loss_weight,
            "mt_settings": self._settings_in_force(),
            "mt_labels": self._labels_of_fold(),
            "mt_started_from": self._started_from,
            "mt_best_cls": vars(self._best_cls) if self._best_cls is not None else None,
        }
        write_checkpoint(checkpoint, filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Resume from, or validate with, a checkpoint of this trainer.

        Raises:
            CheckpointError: unreadable, without a head, or of another network or number of classes.
        """
        source = "given" if isinstance(filename_or_checkpoint, dict) else str(filename_or_checkpoint)
        checkpoint = (
            filename_or_checkpoint
            if isinstance(filename_or_checkpoint, dict)
            else read_checkpoint(source, map_location=self.device)
        )
        config = head_config(checkpoint, source)
        if not self.was_initialized:
            if config["name"] == self.head_name:
                self._start_options = config["options"]
            self.initialize()
        if config["num_classes"] != self.num_classes:
            raise CheckpointError(
                f"Checkpoint {source}: expected a head for {self.num_classes} classes, found one for "
                f"{config['num_classes']}. The class labels changed since; train anew or restore them."
            )
        target = config["target_labels"]
        if target is not None and list(target) != list(self.target_labels.labels):
            raise CheckpointError(
                f"Checkpoint {source}: its class is carried by the voxel labels {list(target)}, found "
                f"{list(self.target_labels.labels)}. Set NNUNETV2_MT_TARGET_LABELS={','.join(map(str, target))}."
            )
        network = self.multitask_network
        check_unet_fits(network.unet_state_dict(), checkpoint["network_weights"], source)
        check_unet_fits(network.cls_head.state_dict(), checkpoint[HEAD_STATE], f"{source} ({HEAD_STATE})")
        network.load_state_dict(network.join_state_dicts(checkpoint["network_weights"], checkpoint[HEAD_STATE]))
        self._restore_training(checkpoint)
        best = checkpoint.get("mt_best_cls")
        self._best_cls = ClassScore(**best) if best else None
        skipped = checkpoint["logging"].get("skipped_steps") or [0]
        self._skipped = int(skipped[-1]) if not np.isnan(skipped[-1]) else 0
        self._started_from = checkpoint.get("mt_started_from")
        self._saved_run = {key: checkpoint.get(key) or {} for key in ("mt_settings", "mt_labels")}
        self._resumed = True

    def _settings_in_force(self) -> dict[str, Any]:
        """What decides the course of training, by the variable that sets it."""
        settings = self.settings
        weights = settings.class_weights or self.default_class_weights
        return {
            "NNUNETV2_MT_NUM_CLS": self.num_classes,
            "NNUNETV2_MT_LOSS_WEIGHT": settings.loss_weight,
            "NNUNETV2_MT_LOSS_WARMUP": settings.loss_warmup,
            "NNUNETV2_MT_EPOCHS": self.num_epochs,
            "NNUNETV2_MT_ITERS_PER_EPOCH": self.num_iterations_per_epoch,
            "NNUNETV2_MT_VAL_ITERS": self.num_val_iterations_per_epoch,
            "NNUNETV2_MT_LR": self.initial_lr,
            "NNUNETV2_MT_CLASS_WEIGHTS": weights if isinstance(weights, str) else list(weights),
            "NNUNETV2_MT_LABEL_SMOOTHING": self._label_smoothing,
            "NNUNETV2_MT_FOCAL_GAMMA": settings.focal_gamma,
            "NNUNETV2_MT_SAMPLER": settings.sampler,
            "NNUNETV2_MT_SEED": settings.seed,
            "NNUNETV2_MT_TARGET_LABELS": list(self.target_labels.labels),
            "NNUNETV2_MT_INTENSITY_AUG": settings.intensity_aug,
            "NNUNETV2_MT_CLS_VAL_EVERY": settings.cls_val_every,
        }

    def _check_unchanged(self) -> None:
        """A resumed training goes on with the settings and labels that it began with.

        Raises:
            CheckpointError: lists what differs.
        """
        labels = self._labels_of_fold()
        saved_settings, saved_labels = self._saved_run["mt_settings"], self._saved_run["mt_labels"]
        problems = [
            f"{name}: expected {saved_settings[name]}, found {value}"
            for name, value in self._settings_in_force().items()
            if name in saved_settings and saved_settings[name] != value
        ]
        if saved_labels:
            expected, found = _parts(saved_labels), _parts(labels)
            problems += [
                f"{case}: expected {expected.get(case, 'nothing, it was not in this fold')}, "
                f"found {found.get(case, 'nothing, it is not in this fold')}"
                for case in sorted({*expected, *found})
                if expected.get(case) != found.get(case)
            ]
        if problems:
            can_start = self.from_checkpoint or self.may_start_from_checkpoint
            anew = f" and {PRE_CHECKPOINT_PATH} set to this run's checkpoint" if can_start else ""
            raise CheckpointError(
                f"{self.output_folder}: training cannot be resumed, {len(problems)} settings or labels differ from "
                f"those it began with. Restore them, or train anew with another nnUNet_results{anew}:\n  "
                + "\n  ".join(problems[:20])
                + (f"\n  and {len(problems) - 20} more" if len(problems) > 20 else "")
            )

    def _restore_training(self, checkpoint: dict[str, Any]) -> None:
        """What upstream's ``load_checkpoint`` restores beside the weights.

        Upstream's own (2.8.1) takes a dictionary by its signature, but fails for anything but a path.
        """
        self.my_init_kwargs = checkpoint["init_args"]
        self.current_epoch = checkpoint["current_epoch"]
        self.logger.load_checkpoint(checkpoint["logging"])
        self._best_ema = checkpoint["_best_ema"]
        if "inference_allowed_mirroring_axes" in checkpoint:
            self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])


def _parts(labels: dict[str, dict[str, int]]) -> dict[str, str]:
    """Part and class of each case, in words; a case of fold ``all`` is in both parts."""
    found: dict[str, str] = {}
    for part, classes in labels.items():
        for case, k in classes.items():
            found[case] = f"{found[case]} and {part}" if case in found else f"class {k} for {part}"
    return found
