"""Averages of a network's features: over the patch, and where the network itself sees the target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_3dct.networks.heads.base import FeatureSpec, UNetFeatures


def pooled_width(spec: FeatureSpec) -> int:
    """Length of what :func:`pool_features` gives."""
    return 3 * (sum(spec.encoder_channels) + sum(spec.decoder_channels)) + 1


def pool_features(features: UNetFeatures, target_channels: Sequence[int], regions: bool) -> Tensor:
    """Every encoder and decoder stage under the target and over the whole patch, and the size of the target.

    The weights are the squared target probabilities of the network's own segmentation, averaged to each stage's
    grid; no gradient flows through them. Squaring keeps many voxels of faint probability from outweighing a small
    target. Runs in fp32 under autocast.

    Args:
        features: of one forward pass.
        target_channels: channels of the segmentation logits that make up the target.
        regions: whether those are overlapping regions (sigmoid) rather than labels (softmax).

    Returns:
        ``(B, pooled_width)``: for each stage, encoder first, mean and standard deviation under the target, then the
        mean over the patch; at last the logarithm (base 2) of the target's voxels.
    """
    with torch.autocast(features.logits.device.type, enabled=False):
        weight = target_probability(features.logits.detach().float(), target_channels, regions).square()
        pooled = []
        for stage in (*features.encoder, *features.decoder):
            values = stage.float().flatten(2)
            mask = functional.interpolate(weight, size=stage.shape[2:], mode="area").flatten(2)
            mask = (mask / mask.sum(2, keepdim=True).clamp_min(1e-6)).transpose(1, 2)
            # matrix products: no more than one copy of a stage in memory
            mean, square = (values @ mask).squeeze(2), (values.square() @ mask).squeeze(2)
            variance = (square - mean.square()).clamp_min(0)
            pooled += [mean, (variance + 1e-4).sqrt(), values.mean(2)]
        return torch.cat([*pooled, weight.flatten(1).sum(1, keepdim=True).add(1).log2()], dim=1)


def target_probability(logits: Tensor, target_channels: Sequence[int], regions: bool) -> Tensor:
    """Probability of the target in each voxel, ``(B, 1, ...)`` from logits ``(B, L, ...)``."""
    channels = list(target_channels)
    if regions:
        return logits[:, channels].sigmoid().amax(1, keepdim=True)
    return logits.softmax(1)[:, channels].sum(1, keepdim=True)
