"""The trainers: each a short class that states its choices. The class name is the experiment."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_3dct.training.lr_scheduler import GroupPolyLRScheduler
from nnunet_3dct.training.multitask_trainer import MultiTaskTrainer
from nnunet_3dct.training.optimizers import CombinedOptimizer
from nnunet_3dct.training.scheduled_trainer import ScheduledTrainer


class nnUNetTrainer_Stage1(ScheduledTrainer):
    """Stock segmentation training with a schedule from the environment, for stage 1 in a small budget."""


class nnUNetTrainer_CLSHeadSum(MultiTaskTrainer):
    """Grid head over bottleneck and decoder, both tasks together from scratch."""


class nnUNetTrainer_CLSHeadSumFT(MultiTaskTrainer):
    """As ``CLSHeadSum``, from a stage-1 checkpoint, the head at ten times the rate throughout."""

    from_checkpoint = True
    head_lr_factor = 10.0


class nnUNetTrainer_CLSHeadLesion(MultiTaskTrainer):
    """Lesion head under AdamW, U-Net under SGD; from a stage-1 checkpoint when one is given, else from scratch."""

    head_name = "lesion"
    head_lr = 1e-2
    default_class_weights = "balanced"
    label_smoothing = 0.05
    may_start_from_checkpoint = True

    def build_head_options(self) -> dict[str, Any]:
        target = self.target_labels
        return {"target_channels": list(target.channels), "regions": target.has_regions, **self.head_options}

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """SGD for the U-Net as upstream; AdamW for the head, whose rate does not follow the U-Net's."""
        unet, head = self._parameters()
        optimizer = CombinedOptimizer(
            torch.optim.SGD(unet, lr=self.initial_lr, weight_decay=self.weight_decay, momentum=0.99, nesterov=True),
            torch.optim.AdamW(head, lr=self.head_lr, weight_decay=1e-2),
        )
        return optimizer, GroupPolyLRScheduler(optimizer, self.num_epochs)
