"""Averages of a network's features: over the patch, and where the network itself sees the target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_3dct.networks.heads.base import FeatureSpec, UNetFeatures


def pooled_width(spec: FeatureSpec) -> int:
    """Length of what :func:`pool_features` gives."""
    return 2 * (sum(spec.encoder_channels) + sum(spec.decoder_channels))


def pool_features(features: UNetFeatures, target_channels: Sequence[int], regions: bool) -> Tensor:
    """Every encoder and decoder stage averaged under the target and over the whole patch.

    The weights are the squared target probabilities of the network's own segmentation, averaged to each stage's
    grid; no gradient flows through them. Squaring keeps many voxels of faint probability from outweighing a small
    target. Runs in fp32 under autocast.

    Args:
        features: of one forward pass.
        target_channels: channels of the segmentation logits that make up the target.
        regions: whether those are overlapping regions (sigmoid) rather than labels (softmax).

    Returns:
        ``(B, pooled_width)``: for each stage, encoder first, the masked and then the plain average.
    """
    with torch.autocast(features.logits.device.type, enabled=False):
        weight = target_probability(features.logits.detach().float(), target_channels, regions).square()
        pooled = []
        for stage in (*features.encoder, *features.decoder):
            values = stage.float()
            mask = functional.interpolate(weight, size=values.shape[2:], mode="area").flatten(2)
            flat = values.flatten(2)
            pooled += [(flat * mask).sum(2) / mask.sum(2).clamp_min(1e-6), flat.mean(2)]
        return torch.cat(pooled, dim=1)


def target_probability(logits: Tensor, target_channels: Sequence[int], regions: bool) -> Tensor:
    """Probability of the target in each voxel, ``(B, 1, ...)`` from logits ``(B, L, ...)``."""
    channels = list(target_channels)
    if regions:
        return logits[:, channels].sigmoid().amax(1, keepdim=True)
    return logits.softmax(1)[:, channels].sum(1, keepdim=True)
