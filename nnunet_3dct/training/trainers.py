"""The trainers: each a short class that states its choices. The class name is the experiment."""

from __future__ import annotations

from nnunet_3dct.training.multitask_trainer import MultiTaskTrainer
from nnunet_3dct.training.scheduled_trainer import ScheduledTrainer


class nnUNetTrainer_Stage1(ScheduledTrainer):
    """Stock segmentation training with a schedule from the environment, for stage 1 in a small budget."""


class nnUNetTrainer_CLSHeadSum(MultiTaskTrainer):
    """Grid head over bottleneck and decoder, both tasks together from scratch."""


class nnUNetTrainer_CLSHeadSumFT(MultiTaskTrainer):
    """As ``CLSHeadSum``, from a stage-1 checkpoint, the head at ten times the rate throughout."""

    from_checkpoint = True
    head_lr_factor = 10.0
