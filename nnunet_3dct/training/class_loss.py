"""Class loss over the samples whose patch can tell the class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.class_labels import UNKNOWN

Weights = str | Sequence[float]  # of classes: "none", "balanced" or the weights themselves


def class_loss(
    logits: Tensor,
    classes: Tensor,
    shows_target: Tensor,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    ddp: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy or focal loss over the samples that show target and whose class is known.

    Args:
        logits: ``(B, n)``.
        classes: ``(B,)``, -1 where unknown.
        shows_target: bool ``(B,)``.
        weight: one factor for each class.
        label_smoothing: as in torch's ``cross_entropy``.
        focal_gamma: exponent of ``1 - p`` (Lin et al. 2017); 0 is cross-entropy.
        ddp: whether the batch is spread over processes. Then the mean over them of the returned loss is the
            loss of one process with the whole batch, and DDP's mean of the gradients its gradient.

    Returns:
        The loss (0 with a gradient of 0 when no sample counts, so that all parameters take part under
        DDP), and bool ``(B,)`` telling which samples count.
    """
    counts = shows_target & (classes != UNKNOWN)
    known = classes.clamp_min(0)
    logits = logits.float()
    terms = functional.cross_entropy(logits, known, weight, reduction="none", label_smoothing=label_smoothing)
    if focal_gamma:
        missing = 1 - logits.softmax(1).gather(1, known[:, None]).squeeze(1)
        terms = terms * missing.clamp_min(1e-6) ** focal_gamma
    share = counts.float() if weight is None else torch.where(counts, weight[known], 0.0)
    total = share.sum()
    processes = 1
    if ddp:
        dist.all_reduce(total)
        processes = dist.get_world_size()
    loss = torch.where(counts, terms, 0.0).sum() * processes / total.clamp_min(torch.finfo(total.dtype).tiny)
    return loss, counts


def class_weights(choice: str | Sequence[float], counts: Sequence[int]) -> list[float] | None:
    """Weights of the classes.

    Args:
        choice: ``"none"``, ``"balanced"`` (inverse frequency, as scikit-learn's) or the weights themselves.
        counts: training cases in each class.

    Raises:
        SettingsError: as many weights as classes are expected.
    """
    if choice == "none":
        return None
    if choice == "balanced":
        present = sum(count > 0 for count in counts)
        return [sum(counts) / (present * count) if count else 0.0 for count in counts]
    if isinstance(choice, str) or len(choice) != len(counts):
        raise SettingsError(
            f"NNUNETV2_MT_CLASS_WEIGHTS: expected {len(counts)} weights, one for each class, found {choice!r}."
        )
    return list(choice)


def as_tensor(weights: Sequence[float] | None, device: torch.device) -> Tensor | None:
    """Weights on the device of the logits."""
    return None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
