"""The detached head: it reads the bottleneck and leaves the network as it is."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import register_head
from nnunet_3dct.networks.heads.base import ClassificationHead
from nnunet_3dct.networks.standardize import RunningStandardize


@register_head
class DetachedHead(ClassificationHead):
    """Global average of the bottleneck without gradient, LayerNorm, then a linear layer.

    The class loss trains this head only: the network learns from the segmentation alone. The layer norm removes what
    the channels of a case share, not what the cases share; ``standardize`` removes that first.

    Args:
        spec: features of the network.
        num_classes: number of classes.
        standardize: whether each channel is standardised by running statistics; as published: not.
    """

    name = "detached"

    def __init__(self, spec: FeatureSpec, num_classes: int, standardize: bool = False) -> None:
        super().__init__(spec, num_classes, standardize=standardize)
        width = spec.encoder_channels[-1]
        self.prepare = RunningStandardize.of_averages(width) if standardize else nn.Identity()
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes)

    def summarize(self, features: UNetFeatures) -> tuple[Tensor, ...]:
        return (features.encoder[-1].detach().float().flatten(2).mean(2),)

    def classify(self, *summary: Tensor) -> Tensor:
        return self.classifier(self.norm(self.prepare(*summary)))
