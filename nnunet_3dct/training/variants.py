"""The trainers: each a short class that states its choices. The class name is the experiment.

The published heads standardise what they read, since on raw features a short training leaves them at chance
(docs/heads.md); ``NNUNETV2_MT_STANDARDIZE=off`` trains them as published.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.optim.lr_scheduler import LRScheduler

from nnunet_3dct.formats.dataset_json import num_channels
from nnunet_3dct.inference.measurements import measurement_names
from nnunet_3dct.training.schedule import CombinedOptimizer, GroupLRScheduler, cosine, poly, sgd, split_parameters
from nnunet_3dct.training.scheduled_trainer import ScheduledTrainer
from nnunet_3dct.training.trainer import MultiTaskTrainer


class nnUNetTrainer_Stage1(ScheduledTrainer):
    """Stock segmentation training with a schedule from the environment, for stage 1 in a small budget."""


class nnUNetTrainer_CLSHeadSum(MultiTaskTrainer):
    """Grid head over bottleneck and decoder, both tasks together from scratch."""

    head_options: ClassVar[dict[str, Any]] = {"standardize": True}


class nnUNetTrainer_CLSHeadSumFT(MultiTaskTrainer):
    """As ``CLSHeadSum``, from a stage-1 checkpoint, the head at ten times the rate throughout."""

    head_options: ClassVar[dict[str, Any]] = {"standardize": True}
    from_checkpoint = True
    head_lr_factor = 10.0


class nnUNetTrainer_CLSHeadSimple(MultiTaskTrainer):
    """Averaged bottleneck and a linear layer; trains encoder and head, the decoder stays as it began."""

    head_name = "simple"
    head_options: ClassVar[dict[str, Any]] = {"standardize": True}
    frozen_parts = ("decoder",)
    default_class_weights = "balanced"
    may_start_from_checkpoint = True


class nnUNetTrainer_CLSHeadSepOpt(MultiTaskTrainer):
    """Two trainings side by side: U-Net under SGD from the segmentation, detached head under Adam from the class."""

    head_name = "detached"
    head_options: ClassVar[dict[str, Any]] = {"standardize": True}
    head_lr_factor = 5.0
    default_class_weights = "balanced"
    may_start_from_checkpoint = True

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """SGD and nnU-Net's polynomial for the U-Net; Adam at five times the rate and a cosine for the head."""
        unet, head = split_parameters(self.multitask_network)
        optimizer = CombinedOptimizer(sgd(unet, self), torch.optim.Adam(head, lr=self.initial_lr * self.head_lr_factor))
        return optimizer, GroupLRScheduler(optimizer, self.num_epochs, [poly, cosine])


class nnUNetTrainer_CLSHeadMA(MultiTaskTrainer):
    """Memory attention head, everything under RAdam with a cosine, from a stage-1 checkpoint."""

    head_name = "memory_attention"
    head_options: ClassVar[dict[str, Any]] = {"standardize": True}
    from_checkpoint = True

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """One RAdam for network and head."""
        unet, head = split_parameters(self.multitask_network)
        optimizer = torch.optim.RAdam(unet + head, lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, GroupLRScheduler(optimizer, self.num_epochs, cosine)


class nnUNetTrainer_CLSHeadLesion(MultiTaskTrainer):
    """Case head under AdamW, U-Net under SGD from the segmentation; at the end the head is fitted to whole volumes.

    From a stage-1 checkpoint when one is given, else from scratch. With ``gradient`` above 0 in the head's options, or
    in ``NNUNETV2_MT_GRADIENT``, the network learns from the class too; then λ is small by default.
    """

    head_name = "case"
    head_lr = 3e-3
    has_gradient_option = True
    joint_loss_weight = 0.1
    default_class_weights = "balanced"
    label_smoothing = 0.05
    may_start_from_checkpoint = True
    fits_head_to_volumes = True

    def build_head_options(self) -> dict[str, Any]:
        target, channels = self.target_labels, num_channels(self.dataset_json)
        options = {"channels": channels, "measured": measurement_names(channels), **super().build_head_options()}
        return {**options, "target_channels": target.channels, "regions": target.has_regions}

    @property
    def full_loss_weight(self) -> float:
        """Small by default where the class loss reaches the network, which it would overfit."""
        if self.settings.loss_weight is None and self.gradient:
            return self.joint_loss_weight
        return super().full_loss_weight

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """SGD for the U-Net as upstream; AdamW for the head, whose rate does not follow the U-Net's."""
        unet, head = split_parameters(self.multitask_network)
        optimizer = CombinedOptimizer(sgd(unet, self), torch.optim.AdamW(head, lr=self.head_lr, weight_decay=1e-2))
        return optimizer, GroupLRScheduler(optimizer, self.num_epochs)
