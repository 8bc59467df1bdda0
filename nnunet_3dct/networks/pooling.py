"""Averages of a network's features: over the patch, and where the network itself sees the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:  # the heads use this module
    from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures

LEAST_VARIANCE = 1e-4


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
        weight = _target_weight(features, target_channels, regions)
        pooled = []
        space = tuple(range(2, weight.ndim))
        for stage in (*features.encoder, *features.decoder):
            values = stage.float()
            mask = _target_mask(weight, stage)
            # products of voxels rather than of matrices: runtimes that keep channels last need not turn a stage round
            under = values * mask
            mean, square = under.sum(space), (under * values).sum(space)
            variance = (square - mean.square()).clamp_min(0)
            pooled += [mean, (variance + LEAST_VARIANCE).sqrt(), values.mean(space)]
        return torch.cat([*pooled, weight.flatten(1).sum(1, keepdim=True).add(1).log2()], dim=1)


@torch.no_grad()
def unpool_features(
    features: UNetFeatures, target_channels: Sequence[int], regions: bool, slopes: Tensor, origin: Tensor
) -> list[Tensor]:
    """What each place adds to ``slopes · (pool_features - origin)``, which is their sum but for the size's share.

    Means are sums over places as they stand; so is a standard deviation σ, as (σ² - o²) / (σ + o) with its origin o.
    The mean over the patch is shared out evenly: what lies above it here lies below it there, and to take half of
    that for evidence would bury the rest. The size of the target has no place at all.

    Args:
        features, target_channels, regions: as for :func:`pool_features`.
        slopes: ``(B, pooled_width)``.
        origin: ``(pooled_width,)``.

    Returns:
        One map ``(B, ...)`` for each stage, encoder first, in float32.
    """
    stages = (*features.encoder, *features.decoder)
    widths = [width for stage in stages for width in [stage.shape[1]] * 3]
    parts = list(zip(slopes[:, :-1].split(widths, 1), origin[None, :-1].split(widths, 1), strict=True))
    weight = _target_weight(features, target_channels, regions)
    return [
        _stage_evidence(stage.float(), _target_mask(weight, stage), *parts[3 * n : 3 * n + 3])
        for n, stage in enumerate(stages)
    ]


def _stage_evidence(values: Tensor, mask: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """Shares of the places in mean, spread and mean over the patch, each with its slopes and origins."""
    ones = (1,) * (values.ndim - 2)
    slopes, origins = ([part.reshape(*part.shape, *ones) for part in kind] for kind in zip(*parts, strict=True))
    space = tuple(range(2, values.ndim))
    mean = (values * mask).sum(space, keepdim=True)
    from_mean = (values - mean).square()
    spread = ((from_mean * mask).sum(space, keepdim=True) + LEAST_VARIANCE).sqrt()
    under = slopes[0] * (values - origins[0])
    under += slopes[1] / (spread + origins[1]) * (from_mean + LEAST_VARIANCE - origins[1].square())
    over_patch = slopes[2] * (values.mean(space, keepdim=True) - origins[2])
    return under.sum(1) * mask[:, 0] + over_patch.sum(1) / values[0, 0].numel()


def _target_weight(features: UNetFeatures, target_channels: Sequence[int], regions: bool) -> Tensor:
    return target_probability(features.logits.detach().float(), target_channels, regions).square()


def _target_mask(weight: Tensor, stage: Tensor) -> Tensor:
    """The weights on a stage's grid, with the sum 1."""
    mask = functional.interpolate(weight, size=stage.shape[2:], mode="area")
    return mask / mask.sum(tuple(range(2, weight.ndim)), keepdim=True).clamp_min(1e-6)


def target_probability(logits: Tensor, target_channels: Sequence[int], regions: bool) -> Tensor:
    """Probability of the target in each voxel, ``(B, 1, ...)`` from logits ``(B, L, ...)``."""
    probabilities = logits.sigmoid() if regions else logits.softmax(1)
    # an index that is a list would be copied to the device, for which the host waits
    found = torch.cat([probabilities[:, channel : channel + 1] for channel in target_channels], 1)
    return found.amax(1, keepdim=True) if regions else found.sum(1, keepdim=True)
