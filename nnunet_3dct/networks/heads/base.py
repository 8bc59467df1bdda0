"""What every classification head shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from nnunet_3dct.formats.clinical_columns import Value
from nnunet_3dct.networks.attribution import hirescam
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.frozen_encoder import FrozenEncoder
from nnunet_3dct.networks.standardize import RunningStandardize


class ClassificationHead(nn.Module):
    """Base of the heads: ``forward(features) -> (B, num_classes)`` logits.

    Subclasses set ``name`` (their key in the registry) and take their own options as keyword arguments. They give
    :meth:`summarize` and :meth:`classify`, or ``forward`` as a whole. With the two apart, prediction in reduced
    precision or in another runtime takes only what is averaged over many voxels from there; the rest runs in
    PyTorch's fp32.

    Args:
        spec: features of the network.
        num_classes: number of classes.
        options: the subclass's own constructor arguments, kept for the checkpoint.

    Attributes:
        averages_mirrors: whether the class of a window is averaged over its mirrored passes, or read from the
            plain pass alone.

    Examples:
        A head of one's own reads its channels from the :class:`~nnunet_3dct.networks.features.FeatureSpec` and so fits
        any network, 2D and 3D (docs/new-head.md tells how to train it):

        >>> import torch
        >>> from torch import nn
        >>> from nnunet_3dct.networks.heads import ClassificationHead, FeatureSpec, UNetFeatures
        >>> class BottleneckHead(ClassificationHead):
        ...     name = "bottleneck"
        ...
        ...     def __init__(self, spec, num_classes, dropout=0.0):
        ...         super().__init__(spec, num_classes, dropout=dropout)
        ...         self.dropout = nn.Dropout(dropout)
        ...         self.classifier = nn.Linear(spec.encoder_channels[-1], num_classes)
        ...
        ...     def forward(self, features):
        ...         return self.classifier(self.dropout(features.encoder[-1].flatten(2).mean(2)))
        >>> spec = FeatureSpec(encoder_channels=(4, 8), decoder_channels=(4,), dim=3)
        >>> head = BottleneckHead(spec, num_classes=3, dropout=0.1)
        >>> head.options
        {'dropout': 0.1}
        >>> fine, coarse = torch.rand(2, 4, 8, 8, 8), torch.rand(2, 8, 4, 4, 4)
        >>> logits = torch.rand(2, 2, 8, 8, 8)
        >>> head(UNetFeatures(encoder=[fine, coarse], decoder=[fine], logits=logits)).shape
        torch.Size([2, 3])
    """

    name: str
    averages_mirrors = True

    def __init__(self, spec: FeatureSpec, num_classes: int, **options: Any) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes = num_classes
        self.options = options

    def summarize(self, features: UNetFeatures) -> tuple[Tensor, ...]:
        """From feature maps to small tensors, each ``(B, ...)``."""
        raise NotImplementedError(f"{type(self).__name__} gives neither forward nor summarize (docs/new-head.md)")

    def classify(self, *summary: Tensor) -> Tensor:
        """Class logits ``(B, num_classes)`` of what :meth:`summarize` gives."""
        raise NotImplementedError(f"{type(self).__name__} gives neither forward nor classify (docs/new-head.md)")

    def forward(self, features: UNetFeatures) -> Tensor:
        return self.classify(*self.summarize(features))

    def after_step(self, all_reduce: Callable[[Tensor], object] | None = None) -> None:
        """Called in training after every step that was taken; updates running statistics.

        Args:
            all_reduce: adds up a tensor over the processes that share a batch, in place; None for one process.
        """
        for module in self.modules():
            if isinstance(module, RunningStandardize):
                module.update(all_reduce)

    def evidence(self, features: UNetFeatures, label: int) -> list[Tensor]:
        """Where the evidence for a class lies: signed maps ``(B, ...)``, each on the grid of a stage.

        :func:`~nnunet_3dct.networks.attribution.hirescam` serves every head; one that is known to be a sum over voxels
        may take itself apart.
        """
        return hirescam(self, features, label)


class WholeCaseHead(ClassificationHead):
    """Base of the heads that compute the class once a case, from features of all its windows.

    Prediction gives :meth:`summarize` the share of every voxel in the window, puts the windows of a case together with
    :meth:`merge`, adds what is measured of the case as a whole and calls :meth:`classify_case`. Training on patches
    goes through :meth:`classify`, as for every head.

    Attributes:
        target_channels, regions: of the segmentation logits, see
            :func:`~nnunet_3dct.networks.pooling.target_probability`.
        channels: of the image; a cascade's network gets more.
        measured: names of what is measured of the image; these columns follow those of the network.
        encoder: that is looked at in place of the network\'s own features; None for none.
    """

    averages_mirrors = False
    target_channels: list[int]
    regions: bool
    channels: int
    measured: tuple[str, ...]

    def __init__(self, spec: FeatureSpec, num_classes: int, **options: Any) -> None:
        super().__init__(spec, num_classes, **options)
        self.encoder: FrozenEncoder | None = None

    @abstractmethod
    def summarize(self, features: UNetFeatures, importance: Tensor | None = None) -> tuple[Tensor, ...]:
        """One tensor of features ``(B, network_width)`` of each window.

        Args:
            features: of one pass.
            importance: share of each voxel ``(B, 1, ...)``, None for 1.
        """

    @abstractmethod
    def merge(self, windows: Tensor, shares: Tensor) -> Tensor:
        """Features of a case ``(network_width,)`` from those of its windows.

        Args:
            windows: ``(N, network_width)`` of :meth:`summarize`, float64.
            shares: ``(N,)`` voxels that each window stands for, float64.
        """

    def encode_covariates(self, values: Mapping[str, Value] | None) -> np.ndarray:
        """Columns of a patient's covariates, which stand last; none unless a head takes some."""
        return np.zeros(0)

    @abstractmethod
    def classify_case(self, columns: Tensor) -> Tensor:
        """Class logits ``(N, num_classes)`` of whole cases ``(N, width)``; NaN for what is missing."""
