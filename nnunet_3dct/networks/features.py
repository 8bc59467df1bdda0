"""What a U-Net shows to a classification head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class UNetFeatures(NamedTuple):
    """Features of one forward pass.

    Attributes:
        encoder: ``(B, C, ...)`` of every encoder stage, fine to coarse; the last is the bottleneck.
        decoder: ``(B, C, ...)`` of every decoder stage, coarse to fine.
        logits: segmentation logits at full resolution ``(B, L, ...)``.
        image: that the network was shown ``(B, C, ...)``, for heads that look at it with other eyes.
    """

    encoder: list[Tensor]
    decoder: list[Tensor]
    logits: Tensor
    image: Tensor | None = None


@dataclass(frozen=True)
class FeatureSpec:
    """Channels of the features and the dimension of the network (2 or 3)."""

    encoder_channels: tuple[int, ...]
    decoder_channels: tuple[int, ...]
    dim: int
