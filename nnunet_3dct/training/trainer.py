"""The base of the multi-task trainers: nnU-Net's hooks, each of which hands on to a module of this folder."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from nnunet_3dct.formats.calibration import keep_copy
from nnunet_3dct.formats.checkpoint import CLASS_BEST, FINAL
from nnunet_3dct.formats.run_record import RunRecord, SettingValue, StartedFrom
from nnunet_3dct.networks.heads import build_head
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, feature_spec
from nnunet_3dct.settings import PRE_CHECKPOINT_PATH, Settings
from nnunet_3dct.training import (
    class_data,
    class_validation,
    fold_data,
    fold_volumes,
    resuming,
    run_state,
    starting,
    target_patches,
)
from nnunet_3dct.training.class_loss import class_loss
from nnunet_3dct.training.class_score import ClassScore
from nnunet_3dct.training.preflight import Choices, check_before_start
from nnunet_3dct.training.progress_log import MultiTaskLogger, log_class_score
from nnunet_3dct.training.schedule import GroupLRScheduler, sgd, split_parameters
from nnunet_3dct.training.scheduled_trainer import ScheduledTrainer
from nnunet_3dct.training.steps import SkippedSteps, mean_class_loss, take_step, to_device
from nnunet_3dct.upstream import PlansManager


class MultiTaskTrainer(ScheduledTrainer):
    """nnU-Net's trainer with a classification head on the same network.

    Subclasses state their choices as class attributes; ``NNUNETV2_MT_*`` variables override those that
    concern the schedule, see :class:`nnunet_3dct.settings.Settings`.

    Attributes:
        head_name, head_options: the head, by its name in the registry.
        head_lr_factor: the head's learning rate relative to the U-Net's.
        default_class_weights: unless ``NNUNETV2_MT_CLASS_WEIGHTS`` says otherwise, ``"none"`` or ``"balanced"``.
        label_smoothing: of the class loss.
        default_loss_weight: λ in ``seg_loss + λ · cls_loss`` unless ``NNUNETV2_MT_LOSS_WEIGHT`` says otherwise.
        has_gradient_option: whether the head takes ``gradient``, the share of the class loss's gradient that reaches
            the network.
        frozen_parts: modules of the U-Net that are not trained.
        from_checkpoint: whether training needs a stage-1 checkpoint.
        may_start_from_checkpoint: whether it starts from one when the variable is set.
        fits_head_to_volumes: whether a case head is fitted to whole volumes at the end.
        max_skipped_steps: non-finite steps in a row after which training stops. Higher on CUDA, where the
            gradient scaler needs some to find its scale.

    Raises:
        SettingsError, ClassLabelsError, CheckpointError: from the constructor, before any folder is made.
    """

    head_name = "grid"
    head_options: ClassVar[dict[str, Any]] = {}
    head_lr_factor = 1.0
    default_class_weights = "none"
    label_smoothing = 0.0
    default_loss_weight = 0.3
    has_gradient_option = False
    frozen_parts: tuple[str, ...] = ()
    default_epochs = 200
    default_lr = 1e-3
    from_checkpoint = False
    may_start_from_checkpoint = False
    fits_head_to_volumes = False
    max_skipped_steps = 20

    multitask_network: MultiTaskUNet

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - upstream's signature
    ) -> None:
        settings = Settings.from_env()
        starts = self.from_checkpoint or bool(self.may_start_from_checkpoint and settings.pre_checkpoint_path)
        choices = Choices(
            self.head_name,
            self.default_class_weights,
            starts,
            self.has_gradient_option,
            "standardize" in self.head_options,
        )
        self.preflight = check_before_start(
            type(self), plans, configuration, fold, dataset_json, device, settings, choices
        )
        self.class_labels, self.num_classes = self.preflight.class_labels, self.preflight.num_classes
        self.target_labels, self.start_options = self.preflight.target, self.preflight.head_options
        super().__init__(plans, configuration, fold, dataset_json, device)
        # Upstream's initialize() builds the network through this name. The static method of the class stays
        # as it is, so that nnUNetv2_predict builds the U-Net alone.
        self.__dict__["build_network_architecture"] = self._build_multitask_network
        self.logger.local_logger = MultiTaskLogger()
        self.class_weight: torch.Tensor | None = None
        self.skipped_steps = SkippedSteps()
        self.epoch_class_score: ClassScore | None = None
        self.best_class_score: ClassScore | None = None
        self.started_from: StartedFrom | None = None
        self.resumed_from: RunRecord | None = None
        self._fold_labels: class_data.FoldLabels | None = None

    # ------------------------------------------------------------------ construction

    def _build_multitask_network(self, plans_manager: PlansManager, *rest: Any) -> nn.Module:
        """The class's own U-Net, which takes these arguments, with the head."""
        unet = type(self).build_network_architecture(plans_manager, *rest)
        head = build_head(self.head_name, feature_spec(unet), self.num_classes, **self.build_head_options())
        self.multitask_network = MultiTaskUNet(unet, head)
        self.multitask_network.freeze(self.frozen_parts)
        return self.multitask_network

    def build_head_options(self) -> dict[str, Any]:
        """Options of the head: those of the checkpoint that training starts from, else the trainer's.

        A variant whose head needs to know the target adds that here.
        """
        options = dict(self.head_options if self.start_options is None else self.start_options)
        if self.settings.gradient is not None:
            options["gradient"] = self.settings.gradient
        if self.settings.standardize is not None and self.start_options is None:
            options["standardize"] = self.settings.standardize == "on"
        return options

    @property
    def gradient(self) -> float | None:
        """Share of the class loss's gradient that reaches the network; None for heads without that option."""
        return float(self.build_head_options().get("gradient", 0.0)) if self.has_gradient_option else None

    @property
    def standardize(self) -> str | None:
        """Whether the head standardises what it reads, ``"on"`` or ``"off"``; None for heads without that option."""
        if "standardize" not in self.head_options:
            return None
        return "on" if self.build_head_options().get("standardize") else "off"

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """nnU-Net's SGD and schedule; the head's rate is ``head_lr_factor`` times the U-Net's."""
        unet, head = split_parameters(self.multitask_network)
        optimizer = sgd([{"params": unet}, {"params": head, "lr": self.initial_lr * self.head_lr_factor}], self)
        return optimizer, GroupLRScheduler(optimizer, self.num_epochs)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        self.multitask_network.decoder.deep_supervision = enabled

    def initialize(self) -> None:
        self.default_oversampling = self.oversample_foreground_percent
        super().initialize()
        if self.settings.target_patches:  # nnU-Net has shared its own number out among the processes by now
            self.probabilistic_oversampling = True
            self.oversample_foreground_percent = self.oversampling.forced

    @property
    def oversampling(self) -> target_patches.Oversampling:
        """How often patches are centred on the target, and on any foreground."""
        return target_patches.Oversampling(self.settings.target_patches, self.default_oversampling)

    # ------------------------------------------------------------------ data

    @property
    def fold_labels(self) -> class_data.FoldLabels:
        """Class of every case of the fold, as they were when this was first asked."""
        if self._fold_labels is None:
            training, validation = self.do_split()
            self._fold_labels = class_data.FoldLabels.of(training, validation, self.class_labels.by_case)
        return self._fold_labels

    def get_tr_and_val_datasets(self):
        """nnU-Net's; writes missing splits, sets class weights and sampling and says how the classes are spread."""
        fold_data.write_missing_splits(self)
        training, validation = super().get_tr_and_val_datasets()
        self.class_weight = fold_data.weigh_classes(self)
        return fold_data.as_drawn(self, training), validation

    # ------------------------------------------------------------------ training

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        can_start = self.from_checkpoint or self.may_start_from_checkpoint
        if self.resumed_from is not None:
            resuming.check_unchanged(
                self.resumed_from, self.settings_in_force(), self.fold_labels, self.output_folder, can_start
            )
        elif self.preflight.starts_from_checkpoint:
            self.started_from = starting.start_from_checkpoint(self)
        elif self.settings.pre_checkpoint_path:
            self.print_to_log_file(f"{PRE_CHECKPOINT_PATH} is set, but {type(self).__name__} trains from scratch.")
        self.say(f"Class labels: {self.class_labels.source}", *self.preflight.doubts)
        super().on_train_start()
        if self.local_rank == 0:
            keep_copy(Path(self.output_folder_base))  # nnU-Net has written the model's dataset.json anew

    def train_step(self, batch: dict) -> dict:
        """One encoder-decoder pass, both losses, one optimiser step."""
        classes = torch.tensor([self.class_labels.by_case[str(key)] for key in batch["keys"]])
        data, target, classes = to_device((batch["data"], batch["target"], classes), self.device)
        full_resolution = target[0] if isinstance(target, list) else target

        self.optimizer.zero_grad(set_to_none=True)
        # as upstream: autocast on CUDA only; on the CPU bf16 gradients do not stay finite
        with torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext():
            segmentation, class_logits = self.network(data, return_cls=True)
            seg_loss = self.loss(segmentation, target)
            cls_loss, counts = class_loss(
                class_logits,
                classes,
                self.target_labels.in_patch(full_resolution),
                self.class_weight,
                label_smoothing=self.class_smoothing,
                focal_gamma=self.settings.focal_gamma,
                ddp=self.is_ddp,
            )
            loss = seg_loss + self.loss_weight * cls_loss
        noted = torch.where(counts.any(), cls_loss, float("nan"))
        step = take_step(seg_loss, noted, loss, self.network.parameters(), self.optimizer, self.grad_scaler)
        scaled = self.grad_scaler is not None
        skipped = self.skipped_steps.note(step, batch["keys"], self.current_epoch, scaled, self.max_skipped_steps)
        self.say(skipped)
        if not skipped:
            self.multitask_network.cls_head.after_step(dist.all_reduce if self.is_ddp else None)
            self.average_weights()
        self.count_step()
        return {"loss": np.float32(step.seg_loss), "cls_loss": step.cls_loss}

    @property
    def full_loss_weight(self) -> float:
        """Weight of the class loss after the epochs over which it rises."""
        asked = self.settings.loss_weight
        return self.default_loss_weight if asked is None else asked

    @property
    def loss_weight(self) -> float:
        """Weight of the class loss in the current epoch."""
        warmup = self.settings.loss_warmup
        return self.full_loss_weight * min(1.0, (self.current_epoch + 1) / (warmup + 1))

    @property
    def class_smoothing(self) -> float:
        """Label smoothing of the class loss."""
        asked = self.settings.label_smoothing
        return self.label_smoothing if asked is None else asked

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        losses = self.gather([output["cls_loss"] for output in train_outputs])
        self.logger.log("cls_train_losses", mean_class_loss(losses), self.current_epoch)
        self.logger.log("skipped_steps", self.skipped_steps.total, self.current_epoch)

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        super().on_validation_epoch_end(val_outputs)
        every = self.settings.cls_val_every
        due = (self.current_epoch + 1) % every == 0 or self.current_epoch == self.num_epochs - 1
        self.epoch_class_score = fold_volumes.score_validation_cases(self) if due else None
        log_class_score(self.logger, self.epoch_class_score, self.current_epoch)

    def on_epoch_end(self) -> None:
        score = self.epoch_class_score
        loss = self.logger.get_value("cls_train_losses", step=-1)
        self.say(f"cls_train_loss {loss:.4f}" + (f"; {score}" if score is not None else ""))
        if score is not None and score.better_than(self.best_class_score):
            self.best_class_score = score
            self.print_to_log_file(f"New best class score: macro-F1 {score.macro_f1:.4f}")
            self.save_checkpoint(str(Path(self.output_folder) / CLASS_BEST))
        super().on_epoch_end()

    def on_train_end(self) -> None:
        if self.fits_head_to_volumes:
            self.current_epoch -= 1  # as upstream does below: save_checkpoint counts the epoch that ends
            self.save_checkpoint(str(Path(self.output_folder) / FINAL))  # nothing that follows may cost it
            self.current_epoch += 1
            self.fit_head_to_volumes()
        super().on_train_end()
        if self.local_rank == 0:
            self.say(*run_state.complete_folder(Path(self.output_folder)))

    def fit_head_to_volumes(self) -> None:
        """Fit the case head to the training cases of known class."""
        refit = fold_volumes.refit_head(self)
        if refit.head is not None:
            self.multitask_network.cls_head = refit.head
            self.weight_average = None  # training is over, and it knows the old head
        self.say(refit.message)

    # ------------------------------------------------------------------ final validation

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's validation; the class of each case is noted in the same passes.

        Writes ``<case>_classification.json``, ``subtype_results.csv``, ``subtype_probabilities.csv`` and
        ``classification_metrics.json`` beside the segmentations of the fold.
        """
        class_validation.validate(self, partial(super().perform_actual_validation, save_probabilities))

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's keys with the U-Net alone as ``network_weights``, and the head beside them."""
        if self.local_rank != 0:
            return
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        head = run_state.describe_head(
            self.multitask_network.cls_head, self.dataset_json.get("class_names"), self.target_labels
        )
        record = run_state.record(self.settings_in_force(), self.fold_labels, self.started_from, self.best_class_score)
        average, state = self.weight_average, run_state.trainer_state(self)
        with contextlib.nullcontext() if average is None else average.in_place():
            averaging = None if average is None else average.state()
            run_state.save(filename, self.multitask_network, head, state, record, averaging)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Resume from, or validate with, a checkpoint of this trainer.

        Raises:
            CheckpointError: unreadable, without a head, or of another network or number of classes.
        """
        checkpoint = run_state.read(filename_or_checkpoint, self.device)
        config = checkpoint.head_config
        if not self.was_initialized:
            if config["name"] == self.head_name:
                self.start_options = config["options"]
            self.initialize()
        run_state.load_own(self.multitask_network, self.target_labels, checkpoint)
        run_state.restore_trainer(self, checkpoint.trainer_state)
        self.restore_average(checkpoint.averaging)
        self.best_class_score = resuming.best_class_score(checkpoint, Path(self.output_folder))
        self.skipped_steps.total = checkpoint.skipped_steps
        self.started_from, self.resumed_from = checkpoint.started_from, checkpoint.run_record

    def settings_in_force(self) -> dict[str, SettingValue]:
        """What decides the course of this training, by the variable that sets it."""
        return resuming.settings_in_force(self)
