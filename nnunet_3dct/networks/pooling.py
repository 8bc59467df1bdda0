"""Averages of a network's features: over the patch, and where the network itself sees the target."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_3dct.networks.target import pick_channels

if TYPE_CHECKING:  # the heads use this module
    from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures

LEAST_VARIANCE = 1e-4


def pooled_width(spec: FeatureSpec) -> int:
    """Length of what :func:`pool_features` gives."""
    return 3 * (sum(spec.encoder_channels) + sum(spec.decoder_channels)) + 1


def pool_features(
    features: UNetFeatures, target_channels: Sequence[int], regions: bool, importance: Tensor | None = None
) -> Tensor:
    """Every encoder and decoder stage under the target and over the whole patch, and the size of the target.

    The weights are the squared target probabilities of the network's own segmentation, averaged to each stage's
    grid; no gradient flows through them. Squaring keeps many voxels of faint probability from outweighing a small
    target. Runs in fp32 under autocast.

    Args:
        features: of one forward pass.
        target_channels: channels of the segmentation logits that make up the target.
        regions: whether those are overlapping regions (sigmoid) rather than labels (softmax).
        importance: ``(B, 1, ...)``, share of each voxel of the patch, see :func:`merge_windows`; None for 1.

    Returns:
        ``(B, pooled_width)``: for each stage, encoder first, mean and standard deviation under the target, then the
        mean over the patch; at last the logarithm (base 2) of the target's voxels.
    """
    with torch.autocast(features.logits.device.type, enabled=False):
        weight = _target_weight(features, target_channels, regions)
        if importance is not None:
            importance = importance.float()
            weight = weight * importance
        pooled = []
        space = tuple(range(2, weight.ndim))
        for stage in (*features.encoder, *features.decoder):
            values = stage.float()
            mask = _on_grid(weight, stage)
            # products of voxels rather than of matrices: runtimes that keep channels last need not turn a stage round
            under = values * mask
            mean, square = under.sum(space), (under * values).sum(space)
            variance = (square - mean.square()).clamp_min(0)
            over_patch = values if importance is None else values * _on_grid(importance, stage)
            average = over_patch.mean(space) if importance is None else over_patch.sum(space)
            pooled += [mean, (variance + LEAST_VARIANCE).sqrt(), average]
        return torch.cat([*pooled, weight.flatten(1).sum(1, keepdim=True).add(1).log2()], dim=1)


def merge_windows(pooled: Tensor, shares: Tensor, spec: FeatureSpec) -> Tensor:
    """The pooled features of a case from those of its windows.

    Each voxel of the case has a share in every window that covers it, and its shares add up to 1: how the case is cut,
    into how many windows and with what overlap then makes no difference but for what a network sees near the border of
    a window.

    Args:
        pooled: ``(N, pooled_width)`` of :func:`pool_features`, float64.
        shares: ``(N,)`` sums of the importance over each window, in voxels.
        spec: features of the network.

    Returns:
        ``(pooled_width,)``, float64.
    """
    target = torch.exp2(pooled[:, -1]) - 1
    under = (target / target.sum() if bool(target.sum() > 0) else torch.full_like(target, 1 / len(target)))[:, None]
    patch = (shares / shares.sum())[:, None]
    merged = []
    for columns in stage_columns(spec):
        mean, spread, average = pooled[:, columns].chunk(3, dim=1)
        square = (under * (spread.square() - LEAST_VARIANCE + mean.square())).sum(0)
        mean = (under * mean).sum(0)
        variance = (square - mean.square()).clamp_min(0)
        merged += [mean, (variance + LEAST_VARIANCE).sqrt(), (patch * average).sum(0)]
    return torch.cat([*merged, (target.sum() + 1).log2()[None]])


def stage_columns(spec: FeatureSpec) -> list[slice]:
    """Where each stage lies in the pooled features, encoder first: mean, spread and mean over the patch in a row."""
    ends = itertools.accumulate((3 * width for width in (*spec.encoder_channels, *spec.decoder_channels)), initial=0)
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


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
        _stage_evidence(stage.float(), _on_grid(weight, stage), *parts[3 * n : 3 * n + 3])
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


def _on_grid(weight: Tensor, stage: Tensor) -> Tensor:
    """Weights of the patch on a stage's grid, with the sum 1."""
    mask = functional.interpolate(weight, size=stage.shape[2:], mode="area")
    return mask / mask.sum(tuple(range(2, weight.ndim)), keepdim=True).clamp_min(1e-6)


def target_probability(logits: Tensor, target_channels: Sequence[int], regions: bool) -> Tensor:
    """Probability of the target in each voxel, ``(B, 1, ...)`` from logits ``(B, L, ...)``."""
    if regions:
        return pick_channels(logits, target_channels).sigmoid().amax(1, keepdim=True)
    return pick_channels(logits.softmax(1), target_channels).sum(1, keepdim=True)
