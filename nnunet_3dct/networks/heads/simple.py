"""The simple head: the averaged bottleneck and one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import register_head
from nnunet_3dct.networks.heads.base import ClassificationHead


@register_head
class SimpleHead(ClassificationHead):
    """Global average of the bottleneck, then a linear layer.

    Args:
        spec: features of the network.
        num_classes: number of classes.
    """

    name = "simple"

    def __init__(self, spec: FeatureSpec, num_classes: int) -> None:
        super().__init__(spec, num_classes)
        self.classifier = nn.Linear(spec.encoder_channels[-1], num_classes)

    def summarize(self, features: UNetFeatures) -> tuple[Tensor, ...]:
        return (features.encoder[-1].flatten(2).mean(2),)

    def classify(self, *summary: Tensor) -> Tensor:
        return self.classifier(*summary)
