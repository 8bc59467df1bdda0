"""Averages of a network's features: over the patch, and where the network itself sees the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:  # the heads use this module
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
        space = tuple(range(2, weight.ndim))
        for stage in (*features.encoder, *features.decoder):
            values = stage.float()
            mask = functional.interpolate(weight, size=stage.shape[2:], mode="area")
            mask = mask / mask.sum(space, keepdim=True).clamp_min(1e-6)
            # products of voxels rather than of matrices: runtimes that keep channels last need not turn a stage round
            under = values * mask
            mean, square = under.sum(space), (under * values).sum(space)
            variance = (square - mean.square()).clamp_min(0)
            pooled += [mean, (variance + 1e-4).sqrt(), values.mean(space)]
        return torch.cat([*pooled, weight.flatten(1).sum(1, keepdim=True).add(1).log2()], dim=1)


def target_probability(logits: Tensor, target_channels: Sequence[int], regions: bool) -> Tensor:
    """Probability of the target in each voxel, ``(B, 1, ...)`` from logits ``(B, L, ...)``."""
    channels = list(target_channels)
    if regions:
        return logits[:, channels].sigmoid().amax(1, keepdim=True)
    return logits.softmax(1)[:, channels].sum(1, keepdim=True)
