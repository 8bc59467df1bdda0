"""The grid head: a coarse grid of every scale's strongest responses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import register_head
from nnunet_3dct.networks.heads.base import ClassificationHead
from nnunet_3dct.networks.standardize import RunningStandardize


@register_head
class GridHead(ClassificationHead):
    """Multi-scale head over the bottleneck and every decoder stage.

    Each scale is max-pooled to a grid, flattened and sent through its own two-layer perceptron
    (``C · grid^dim -> C / 2 -> n``); a linear layer joins the logits of all scales. Parameter names are
    those of the published stage-2 checkpoints (``mlp_layers.{i}.{0,2}``, ``final_fc``).

    The maxima of normalised features are large and much alike in every case, and what tells the classes apart is
    a small part of them. On such inputs gradient descent swings along what they share: at the rates that this head is
    trained with it stays at chance (docs/heads.md). ``standardize`` takes the shared part out.

    Args:
        spec: features of the network.
        num_classes: number of classes.
        grid: cells along each axis.
        standardize: whether each cell is standardised by running statistics; the published checkpoints do without.
    """

    name = "grid"

    def __init__(self, spec: FeatureSpec, num_classes: int, grid: int = 4, standardize: bool = False) -> None:
        super().__init__(spec, num_classes, grid=grid, standardize=standardize)
        channels = (spec.encoder_channels[-1], *spec.decoder_channels)
        self.pool = nn.AdaptiveMaxPool3d(grid) if spec.dim == 3 else nn.AdaptiveMaxPool2d(grid)
        self.mlp_layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(c * grid**spec.dim, max(c // 2, 1)),
                nn.ReLU(inplace=True),
                nn.Linear(max(c // 2, 1), num_classes),
            )
            for c in channels
        )
        self.final_fc = nn.Linear(len(channels) * num_classes, num_classes)
        self.prepare = nn.ModuleList(
            RunningStandardize(c * grid**spec.dim) if standardize else nn.Identity() for c in channels
        )

    def summarize(self, features: UNetFeatures) -> tuple[Tensor, ...]:
        return tuple(self.pool(scale).flatten(1) for scale in (features.encoder[-1], *features.decoder))

    def classify(self, *summary: Tensor) -> Tensor:
        layers = zip(self.prepare, self.mlp_layers, summary, strict=True)
        return self.final_fc(torch.cat([mlp(prepare(cells)) for prepare, mlp, cells in layers], dim=1))
