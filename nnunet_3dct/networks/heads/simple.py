"""The simple head: the averaged bottleneck and one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import register_head
from nnunet_3dct.networks.heads.base import ClassificationHead
from nnunet_3dct.networks.standardize import RunningStandardize


@register_head
class SimpleHead(ClassificationHead):
    """Global average of the bottleneck, then a linear layer.

    After an instance norm and its nonlinearity the average of a channel is nearly the same in every case: what tells
    the classes apart is some hundredths of it, which no usual rate learns in a short training (docs/heads.md).
    ``standardize`` spreads it.

    Args:
        spec: features of the network.
        num_classes: number of classes.
        standardize: whether each channel is standardised by running statistics; as published: not.
    """

    name = "simple"

    def __init__(self, spec: FeatureSpec, num_classes: int, standardize: bool = False) -> None:
        super().__init__(spec, num_classes, standardize=standardize)
        width = spec.encoder_channels[-1]
        self.prepare = RunningStandardize.of_averages(width) if standardize else nn.Identity()
        self.classifier = nn.Linear(width, num_classes)

    def summarize(self, features: UNetFeatures) -> tuple[Tensor, ...]:
        return (features.encoder[-1].float().flatten(2).mean(2),)

    def classify(self, *summary: Tensor) -> Tensor:
        return self.classifier(self.prepare(*summary))
