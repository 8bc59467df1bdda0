"""Class loss over the samples whose patch can tell the class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_3dct.class_labels import UNKNOWN
from nnunet_3dct.errors import SettingsError


def class_loss(
    logits: Tensor,
    classes: Tensor,
    shows_target: Tensor,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the samples that show target and whose class is known.

    Args:
        logits: ``(B, n)``.
        classes: ``(B,)``, -1 where unknown.
        shows_target: bool ``(B,)``.
        weight: one factor for each class.
        label_smoothing: as in torch's ``cross_entropy``.

    Returns:
        The loss (0 with a gradient of 0 when no sample counts, so that all parameters take part under
        DDP), and bool ``(B,)`` telling which samples count.
    """
    counts = shows_target & (classes != UNKNOWN)
    if not bool(counts.any()):
        return logits.float().sum() * 0.0, counts
    loss = functional.cross_entropy(logits[counts].float(), classes[counts], weight, label_smoothing=label_smoothing)
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
