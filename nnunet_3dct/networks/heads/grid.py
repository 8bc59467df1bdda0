"""The grid head: a coarse grid of every scale's strongest responses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_3dct.networks.heads import register
from nnunet_3dct.networks.heads.base import ClassificationHead, FeatureSpec, UNetFeatures


@register
class GridHead(ClassificationHead):
    """Multi-scale head over the bottleneck and every decoder stage.

    Each scale is max-pooled to a grid, flattened and sent through its own two-layer perceptron
    (``C · grid^dim -> C / 2 -> n``); a linear layer joins the logits of all scales. Parameter names are
    those of the published stage-2 checkpoints (``mlp_layers.{i}.{0,2}``, ``final_fc``).

    The maxima of normalised features are all large and alike: what tells the classes apart is a small part of
    them, and gradient descent on such inputs is either unstable or slow. ``normalize`` takes mean and spread out
    of each scale's cells, without parameters.

    Args:
        spec: features of the network.
        num_classes: number of classes.
        grid: cells along each axis.
        normalize: whether each scale's cells are standardised; the published checkpoints do without.
    """

    name = "grid"

    def __init__(self, spec: FeatureSpec, num_classes: int, grid: int = 4, normalize: bool = False) -> None:
        super().__init__(spec, num_classes, grid=grid, normalize=normalize)
        self.normalize = normalize
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

    def forward(self, features: UNetFeatures) -> Tensor:
        scales = (features.encoder[-1], *features.decoder)
        votes = [mlp(self._cells(f)) for mlp, f in zip(self.mlp_layers, scales, strict=True)]
        return self.final_fc(torch.cat(votes, dim=1))

    def _cells(self, features: Tensor) -> Tensor:
        cells = self.pool(features).flatten(1)
        return functional.layer_norm(cells, cells.shape[1:]) if self.normalize else cells
