"""What every classification head shares."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nnunet_3dct.networks.attribution import hirescam
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures


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

    def evidence(self, features: UNetFeatures, label: int) -> list[Tensor]:
        """Where the evidence for a class lies: signed maps ``(B, ...)``, each on the grid of a stage.

        :func:`~nnunet_3dct.networks.attribution.hirescam` serves every head; one that is known to be a sum over voxels
        may take itself apart.
        """
        return hirescam(self, features, label)
