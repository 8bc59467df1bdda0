"""One optimiser step: gradients clipped as upstream does it, steps without finite gradients left out and counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_3dct.errors import TrainingError, listing

LARGEST_NORM = 12  # upstream's


@dataclass(frozen=True)
class StepResult:
    """What came of one step.

    Attributes:
        seg_loss, cls_loss: of the batch; the latter NaN where no sample could tell its class.
        loss_is_nan: whether their weighted sum is not a number.
        finite: whether the gradients were, so that the step was taken.
    """

    seg_loss: float
    cls_loss: float
    loss_is_nan: bool
    finite: bool


def to_device(batch: Any, device: torch.device) -> Any:
    """Tensors, also in lists and tuples, on the device; nothing waits for the transfer."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return type(batch)(to_device(part, device) for part in batch)


def take_step(
    seg_loss: Tensor,
    cls_loss: Tensor,
    loss: Tensor,
    parameters: Iterable[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
) -> StepResult:
    """Backward, clip as upstream, step where the gradients are finite.

    All numbers come back from the device at once: with the scaler's own look at the gradients that makes two waits,
    as many as upstream's step has.

    Args:
        seg_loss, cls_loss: of the batch, scalars; for the result only.
        loss: what is minimised.
        parameters: whose gradients are clipped together.
        optimizer: takes the step.
        scaler: of mixed precision; it leaves steps out by itself.
    """
    (scaler.scale(loss) if scaler is not None else loss).backward()
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(parameters, LARGEST_NORM)
    seg, cls, total, length = read_back(seg_loss, cls_loss, loss, norm)
    finite = math.isfinite(length)
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    elif finite:
        optimizer.step()
    return StepResult(seg, cls, math.isnan(total), finite)


def read_back(*values: Tensor) -> list[float]:
    """Scalars of one device as numbers, in one transfer."""
    return torch.stack([value.detach().float() for value in values]).tolist()


@dataclass
class SkippedSteps:
    """Counts the steps that were left out, and stops a training that takes none any more.

    Attributes:
        total: since the training began.
        in_a_row: since the last step that was taken.
    """

    total: int = 0
    in_a_row: int = 0

    def note(self, step: StepResult, keys: Sequence[object], epoch: int, scaled: bool, limit: int) -> str | None:
        """Count a step.

        Args:
            step: what came of it.
            keys: cases of its batch.
            epoch: current one.
            scaled: whether a gradient scaler is at work. It finds its scale by steps that overflow, so three times as
                many may follow each other, and a loss that is NaN is one of them. Without, a loss that is NaN says
                that the weights or the data are.
            limit: so many in a row stop the training.

        Returns:
            A line for the log where the step was left out.

        Raises:
            TrainingError: the loss is NaN without a scaler, or too many steps in a row were left out.
        """
        if step.finite:
            self.in_a_row = 0
            return None
        cases = listing([str(key) for key in keys])
        if step.loss_is_nan and not scaled:
            raise TrainingError(
                f"Training stopped in epoch {epoch}: expected a number as loss, found NaN. Cases of the "
                f"batch: {cases}. Check their images and labels (nnUNet3DCT_check), lower NNUNETV2_MT_LR, or go "
                "on from the last checkpoint with --c."
            )
        self.total += 1
        self.in_a_row += 1
        limit *= 3 if scaled else 1
        if self.in_a_row >= limit:
            raise TrainingError(
                f"Training stopped in epoch {epoch}: expected finite gradients, found {limit} "
                f"steps in a row without. Cases of the last batch: {cases}. Check their images for extreme values, "
                "lower NNUNETV2_MT_LR, or go on from the last checkpoint with --c."
            )
        return f"Gradients not finite, step skipped ({self.total} so far). Cases: {cases}"


def mean_class_loss(losses: Sequence[Sequence[float]]) -> float:
    """Class loss of an epoch: the mean over the steps in which any process had a sample that counts.

    Args:
        losses: one row a process, one column a step; NaN where its share of the batch had no such sample.
    """
    table = np.array(losses)
    steps = np.nan_to_num(table).mean(0)[~np.isnan(table).all(0)]
    return float(steps.mean()) if steps.size else float("nan")
