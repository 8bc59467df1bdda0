"""The lesion head: what the features say where the network itself sees the target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_3dct.networks.heads import register
from nnunet_3dct.networks.heads.base import ClassificationHead, FeatureSpec, UNetFeatures


@register
class LesionHead(ClassificationHead):
    """Features of every encoder and decoder stage, averaged under the target and over the whole patch.

    The weights are the squared target probabilities of the network's own segmentation, pooled to each
    stage; no gradient flows through them. Squaring keeps many voxels of faint probability from outweighing a
    small lesion. LayerNorm, dropout and one linear layer follow: some 10⁴ parameters, and no memory of where
    in the patch the target lies.

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
        width = 2 * (sum(spec.encoder_channels) + sum(spec.decoder_channels))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, features: UNetFeatures) -> Tensor:
        with torch.autocast(features.logits.device.type, enabled=False):
            weight = self._target_probability(features.logits.detach().float()).square()
            pooled = []
            for stage in (*features.encoder, *features.decoder):
                values = stage.float()
                mask = functional.interpolate(weight, size=values.shape[2:], mode="area").flatten(2)
                flat = values.flatten(2)
                pooled += [(flat * mask).sum(2) / mask.sum(2).clamp_min(1e-6), flat.mean(2)]
            return self.classifier(self.dropout(self.norm(torch.cat(pooled, dim=1))))

    def _target_probability(self, logits: Tensor) -> Tensor:
        if self.regions:
            return logits[:, self.target_channels].sigmoid().amax(1, keepdim=True)
        return logits.softmax(1)[:, self.target_channels].sum(1, keepdim=True)
