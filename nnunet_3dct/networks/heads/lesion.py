"""The lesion head: what the features say where the network itself sees the target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunet_3dct.networks.heads import register
from nnunet_3dct.networks.heads.base import ClassificationHead, FeatureSpec, UNetFeatures
from nnunet_3dct.networks.pooling import pool_features, pooled_width


@register
class LesionHead(ClassificationHead):
    """Features of every encoder and decoder stage, averaged under the target and over the whole patch.

    The target is where the network's own segmentation sees it, see
    :func:`~nnunet_3dct.networks.pooling.pool_features`. LayerNorm, dropout and one linear layer follow: some 10⁴
    parameters, and no memory of where in the patch the target lies.

    Args:
        spec: features of the network.
        num_classes: number of classes.
        target_channels: channels of the segmentation logits that make up the target.
        regions: whether those are overlapping regions (sigmoid) rather than labels (softmax).
        dropout: before the linear layer.
    """

    name = "lesion"

    def __init__(
        self,
        spec: FeatureSpec,
        num_classes: int,
        target_channels: Sequence[int] = (1,),
        regions: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(spec, num_classes, target_channels=list(target_channels), regions=regions, dropout=dropout)
        self.target_channels = list(target_channels)
        self.regions = regions
        width = pooled_width(spec)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, features: UNetFeatures) -> Tensor:
        with torch.autocast(features.logits.device.type, enabled=False):
            pooled = pool_features(features, self.target_channels, self.regions)
            return self.classifier(self.dropout(self.norm(pooled)))
