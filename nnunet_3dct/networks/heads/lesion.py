"""The lesion head: what the features say where the network itself sees the target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunet_3dct.networks.attribution import class_margin
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import register_head
from nnunet_3dct.networks.heads.base import ClassificationHead
from nnunet_3dct.networks.pooling import pool_features, pooled_width, unpool_features
from nnunet_3dct.networks.standardize import RunningStandardize

LEAST_TARGET = 3.0  # log2 of the voxels below which averages under the target mean nothing


@register_head
class LesionHead(ClassificationHead):
    """Mean and spread of every encoder and decoder stage under the target, mean over the patch, size of the target.

    The target is where the network's own segmentation sees it, see
    :func:`~nnunet_3dct.networks.pooling.pool_features`. Standardisation by running statistics of the patches that
    show target, dropout and one linear layer follow: a logistic regression of some 10⁴ parameters, without memory of
    where in the patch the target lies. It can therefore be fitted at once to the features of whole volumes, see
    :mod:`nnunet_3dct.training.fit_head`.

    Args:
        spec: features of the network.
        num_classes: number of classes.
        target_channels: channels of the segmentation logits that make up the target.
        regions: whether those are overlapping regions (sigmoid) rather than labels (softmax).
        dropout: before the linear layer.
        gradient: share of the class loss's gradient that reaches the network, 0 to 1. At 0 the network learns from
            the segmentation alone.
    """

    name = "lesion"
    averages_mirrors = False  # mirrored passes say little more, and cost more with the head than without

    def __init__(
        self,
        spec: FeatureSpec,
        num_classes: int,
        target_channels: Sequence[int] = (1,),
        regions: bool = False,
        dropout: float = 0.1,
        gradient: float = 0.0,
    ) -> None:
        options = {"target_channels": list(target_channels), "regions": regions}
        super().__init__(spec, num_classes, **options, dropout=dropout, gradient=gradient)
        self.target_channels = list(target_channels)
        self.regions = regions
        self.gradient = gradient
        width = pooled_width(spec)
        self.norm = RunningStandardize(width, least_spread=0.02)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def summarize(self, features: UNetFeatures) -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient > 0):
            pooled = pool_features(features, self.target_channels, self.regions)
        return (torch.lerp(pooled.detach(), pooled, self.gradient) if 0 < self.gradient < 1 else pooled,)

    def classify(self, *summary: Tensor) -> Tensor:
        (pooled,) = summary
        shows_target = pooled[:, -1] > LEAST_TARGET
        with torch.autocast(pooled.device.type, enabled=False):
            return self.classifier(self.dropout(self.norm(pooled, shows_target)))

    @torch.no_grad()
    def evidence(self, features: UNetFeatures, label: int) -> list[Tensor]:
        """Taken apart exactly, against what the training volumes show on average.

        For given target the class margin is a sum over the places of all stages, plus what the size of the target and
        the bias add, which lie nowhere. Gradient times activation would sum up another number: that of features that
        are not standardised, most of which is what all cases have in common.
        """
        (pooled,) = self.summarize(features)
        above = pooled - self.norm.mean
        slopes = self.norm(pooled) / torch.where(above == 0, 1.0, above)  # a feature that is cut off keeps its limit
        slopes = slopes * class_margin(self.classifier.weight.T, label)
        return unpool_features(features, self.target_channels, self.regions, slopes, self.norm.mean)
