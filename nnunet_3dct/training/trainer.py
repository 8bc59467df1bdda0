"""The base of the multi-task trainers: everything that the variants share."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from nnunet_3dct.errors import TrainingError, listing
from nnunet_3dct.formats.calibration import keep_copy
from nnunet_3dct.formats.class_labels import check_class_names
from nnunet_3dct.networks.heads import build_head
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, feature_spec
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.paths import SPLITS_FILE
from nnunet_3dct.settings import PRE_CHECKPOINT_PATH, Settings
from nnunet_3dct.training.class_data import ClassData
from nnunet_3dct.training.class_loss import class_loss, class_weights
from nnunet_3dct.training.class_validation import ClassScore, ClassValidation
from nnunet_3dct.training.preflight import check_pre_checkpoint, check_splits_of_run, read_class_labels, unet_state
from nnunet_3dct.training.progress_log import MultiTaskLogger
from nnunet_3dct.training.run_state import MultiTaskCheckpoints
from nnunet_3dct.training.schedule import GroupLRScheduler
from nnunet_3dct.training.scheduled_trainer import ScheduledTrainer
from nnunet_3dct.upstream import PlansManager


class MultiTaskTrainer(MultiTaskCheckpoints, ClassData, ClassValidation, ScheduledTrainer):
    """nnU-Net's trainer with a classification head on the same network.

    Subclasses state their choices as class attributes; ``NNUNETV2_MT_*`` variables override those that
    concern the schedule, see :class:`nnunet_3dct.settings.Settings`.

    Attributes:
        head_name, head_options: the head, by its name in the registry.
        head_lr_factor: the head's learning rate relative to the U-Net's.
        default_class_weights: unless ``NNUNETV2_MT_CLASS_WEIGHTS`` says otherwise, ``"none"`` or ``"balanced"``.
        label_smoothing: of the class loss.
        frozen_parts: modules of the U-Net that are not trained.
        from_checkpoint: whether training needs a stage-1 checkpoint.
        may_start_from_checkpoint: whether it starts from one when the variable is set.
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
    frozen_parts: tuple[str, ...] = ()
    default_epochs = 200
    default_lr = 1e-3
    from_checkpoint = False
    may_start_from_checkpoint = False
    max_skipped_steps = 20

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - upstream's signature
    ) -> None:
        settings = Settings.from_env()
        self._doubts_about_splits = check_splits_of_run(plans, configuration, fold)
        self.class_labels = read_class_labels(plans, configuration, fold, settings)
        self.num_classes = settings.num_cls or self.class_labels.num_classes
        check_class_names(dataset_json.get("class_names"), self.num_classes, "dataset.json")
        label_manager = PlansManager(plans).get_label_manager(dataset_json)
        self.target_labels = TargetLabels(label_manager, settings.target_labels)
        class_weights(settings.class_weights or self.default_class_weights, [1] * self.num_classes)  # may raise
        self._start_options: dict[str, Any] | None = None
        self._starts_from_checkpoint = self.from_checkpoint or bool(
            self.may_start_from_checkpoint and settings.pre_checkpoint_path
        )
        if self._starts_from_checkpoint:
            results = os.environ.get("nnUNet_results")
            name = f"{type(self).__name__}__{plans['plans_name']}__{configuration}"
            output = Path(results, plans["dataset_name"], name, f"fold_{fold}") if results else None
            expected = unet_state(type(self), PlansManager(plans), configuration, dataset_json)
            start = check_pre_checkpoint(settings, type(self).__name__, self.num_classes, expected, output)
            if start is not None and start["name"] == self.head_name:
                self._start_options = start["options"]

        super().__init__(plans, configuration, fold, dataset_json, device)
        # Upstream's initialize() builds the network through this name. The static method of the class stays
        # as it is, so that nnUNetv2_predict builds the U-Net alone.
        self.__dict__["build_network_architecture"] = self._build_multitask_network
        self.multitask_network: MultiTaskUNet
        self.logger.local_logger = MultiTaskLogger()
        self.class_weight: torch.Tensor | None = None
        self._best_cls: ClassScore | None = None
        self._resumed = False
        self._skipped = self._skipped_in_a_row = 0

    # ------------------------------------------------------------------ construction

    def _build_multitask_network(
        self,
        plans_manager: PlansManager,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        unet = type(self).build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        head = build_head(self.head_name, feature_spec(unet), self.num_classes, **self.build_head_options())
        self.multitask_network = MultiTaskUNet(unet, head)
        for name, parameter in self.multitask_network.named_parameters():
            # each once, by its first name: the decoder also holds the encoder, whose own name comes first
            parameter.requires_grad_(name.partition(".")[0] not in self.frozen_parts)
        return self.multitask_network

    def build_head_options(self) -> dict[str, Any]:
        """Options of the head: those of the checkpoint that training starts from, else the trainer's.

        A variant whose head needs to know the target adds that here.
        """
        return dict(self.head_options if self._start_options is None else self._start_options)

    def _parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of the U-Net that are trained, and those of the head."""
        head = list(self.multitask_network.cls_head.parameters())
        in_head = set(map(id, head))
        unet = [p for p in self.multitask_network.parameters() if id(p) not in in_head and p.requires_grad]
        return unet, head

    def _sgd(self, params: Any) -> torch.optim.SGD:
        """SGD with nnU-Net's momentum and decay."""
        return torch.optim.SGD(params, lr=self.initial_lr, weight_decay=self.weight_decay, momentum=0.99, nesterov=True)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """nnU-Net's SGD and schedule; the head's rate is ``head_lr_factor`` times the U-Net's."""
        unet, head = self._parameters()
        optimizer = self._sgd([{"params": unet}, {"params": head, "lr": self.initial_lr * self.head_lr_factor}])
        return optimizer, GroupLRScheduler(optimizer, self.num_epochs)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        self.multitask_network.decoder.deep_supervision = enabled

    # ------------------------------------------------------------------ training

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self._starts_from_checkpoint and not self._resumed:
            self._load_pre_checkpoint()
        elif self.settings.pre_checkpoint_path and not self._starts_from_checkpoint:
            self.print_to_log_file(f"{PRE_CHECKPOINT_PATH} is set, but {type(self).__name__} trains from scratch.")
        if self._resumed:
            self._check_unchanged()
        self.print_to_log_file(f"Class labels: {self.class_labels.source}")
        for doubt in self._doubts_about_splits:
            self.print_to_log_file(f"WARNING: {SPLITS_FILE}: {doubt}.")
        super().on_train_start()
        if self.local_rank == 0:
            keep_copy(Path(self.output_folder_base))  # nnU-Net has written the model's dataset.json anew

    def train_step(self, batch: dict) -> dict:
        """One encoder-decoder pass, both losses, one optimiser step."""
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        if isinstance(target, list):
            target = [t.to(self.device, non_blocking=True) for t in target]
            full_resolution = target[0]
        else:
            full_resolution = target = target.to(self.device, non_blocking=True)
        classes = torch.tensor([self.class_labels.by_case[str(key)] for key in batch["keys"]], device=self.device)

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
                label_smoothing=self._label_smoothing,
                focal_gamma=self.settings.focal_gamma,
                ddp=self.is_ddp,
            )
            loss = seg_loss + self.loss_weight * cls_loss
        self._take_step(loss, batch["keys"])
        self._advance_bar()
        cls_value = float(cls_loss.detach()) if bool(counts.any()) else float("nan")
        return {"loss": seg_loss.detach().cpu().numpy(), "cls_loss": cls_value}

    @property
    def loss_weight(self) -> float:
        """λ of the current epoch."""
        warmup = self.settings.loss_warmup
        return self.settings.loss_weight * min(1.0, (self.current_epoch + 1) / (warmup + 1))

    @property
    def _label_smoothing(self) -> float:
        chosen = self.settings.label_smoothing
        return self.label_smoothing if chosen is None else chosen

    def _take_step(self, loss: torch.Tensor, keys: Any) -> None:
        """Backward, clip as upstream, step.

        A step whose gradients are not finite is skipped and counted; a loss that is NaN stops the training.
        """
        scaler = self.grad_scaler
        (scaler.scale(loss) if scaler is not None else loss).backward()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        finite = bool(torch.isfinite(torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)))
        if scaler is not None:
            scaler.step(self.optimizer)  # leaves the step out by itself when gradients are not finite
            scaler.update()
        elif finite:
            self.optimizer.step()
        if finite:
            self._skipped_in_a_row = 0
            return
        cases = listing([str(key) for key in keys])
        if bool(loss.isnan()):
            raise TrainingError(
                f"Training stopped in epoch {self.current_epoch}: expected a number as loss, found NaN. Cases of the "
                f"batch: {cases}. Check their images and labels (nnUNet3DCT_check), lower NNUNETV2_MT_LR, or go "
                "on from the last checkpoint with --c."
            )
        self._skipped += 1
        self._skipped_in_a_row += 1
        self.print_to_log_file(f"Gradients not finite, step skipped ({self._skipped} so far). Cases: {cases}")
        limit = self.max_skipped_steps * (3 if scaler is not None else 1)
        if self._skipped_in_a_row >= limit:
            raise TrainingError(
                f"Training stopped in epoch {self.current_epoch}: expected finite gradients, found {limit} "
                f"steps in a row without. Cases of the last batch: {cases}. Check their images for extreme values, "
                "lower NNUNETV2_MT_LR, or go on from the last checkpoint with --c."
            )

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        # one row a process; NaN where its share of the batch had no sample that counts
        losses = np.array(self._gather([float(output["cls_loss"]) for output in train_outputs]))
        counted = ~np.isnan(losses).all(0)
        steps = np.nan_to_num(losses).mean(0)[counted]
        self.logger.log("cls_train_losses", float(steps.mean()) if steps.size else float("nan"), self.current_epoch)
        self.logger.log("skipped_steps", self._skipped, self.current_epoch)

    def on_epoch_end(self) -> None:
        score = self.epoch_class_score
        self.print_to_log_file(
            f"cls_train_loss {self.logger.get_value('cls_train_losses', step=-1):.4f}"
            + (
                f"; whole volumes of {score.n_cases} validation cases: cls_val_loss {score.log_loss:.4f}, "
                f"macro-F1 {score.macro_f1:.4f}, accuracy {score.accuracy:.4f}"
                if score is not None
                else ""
            )
        )
        if score is not None and score.better_than(self._best_cls):
            self._best_cls = score
            self.print_to_log_file(f"New best class score: macro-F1 {score.macro_f1:.4f}")
            self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_cls_best.pth"))
        super().on_epoch_end()

    def on_train_end(self) -> None:
        super().on_train_end()
        # upstream removes checkpoint_latest.pth here; users of this project predict with it
        final = Path(self.output_folder) / "checkpoint_final.pth"
        if self.local_rank == 0 and final.is_file():
            latest = final.with_name("checkpoint_latest.pth")
            temporary = final.with_name(".checkpoint_latest.pth.tmp")
            shutil.copyfile(final, temporary)
            temporary.replace(latest)
            for name in ("plans.json", "dataset.json"):  # the seed's evaluation reads plans.json here
                shutil.copyfile(Path(self.output_folder_base) / name, Path(self.output_folder) / name)

    def _gather(self, value: Any) -> list[Any]:
        """The value of every rank, in order of rank."""
        if not self.is_ddp:
            return [value]
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, value)
        return gathered
