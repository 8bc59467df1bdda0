"""Labels from logits."""

from __future__ import annotations

import torch
from torch import Tensor


def argmax_labels(logits: Tensor) -> Tensor:
    """Index of the largest channel, the first one of equals.

    ``torch.argmax`` over a leading axis takes a hundred times as long on the CPU.

    Args:
        logits: ``(L, ...)``, finite.

    Returns:
        ``(...)``, uint8, or int16 from 256 channels on.
    """
    kind = torch.uint8 if len(logits) <= 256 else torch.int16
    largest = logits[0]
    labels = torch.zeros(largest.shape, dtype=kind, device=logits.device)
    for channel in range(1, len(logits)):
        larger = (logits[channel] > largest).to(kind)
        labels = torch.maximum(labels, larger.mul_(channel))
        largest = torch.maximum(largest, logits[channel])
    return labels
