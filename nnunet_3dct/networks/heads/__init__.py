"""Classification heads: one a file, found by name."""

from __future__ import annotations

from typing import Any, TypeVar

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads.base import ClassificationHead

H = TypeVar("H", bound=type[ClassificationHead])

_REGISTRY: dict[str, type[ClassificationHead]] = {}


def register_head(head: H) -> H:
    """Class decorator that makes a head known under its ``name``, to trainers and to checkpoints.

    Args:
        head: a subclass of :class:`ClassificationHead`.

    Returns:
        The class, as it is.

    Raises:
        ValueError: another head has that name. The same one again is fine: nnU-Net may import a module of
            ``nnUNet_extTrainer`` twice.

    Examples:
        >>> from torch import nn
        >>> from nnunet_3dct.networks.heads import ClassificationHead, FeatureSpec, build_head, register_head
        >>> @register_head
        ... class FinestStageHead(ClassificationHead):
        ...     name = "finest_stage"
        ...
        ...     def __init__(self, spec, num_classes):
        ...         super().__init__(spec, num_classes)
        ...         self.classifier = nn.Linear(spec.decoder_channels[-1], num_classes)
        ...
        ...     def forward(self, features):
        ...         return self.classifier(features.decoder[-1].flatten(2).mean(2))
        >>> spec = FeatureSpec(encoder_channels=(4, 8), decoder_channels=(4,), dim=3)
        >>> build_head("finest_stage", spec, num_classes=3).classifier
        Linear(in_features=4, out_features=3, bias=True)
    """
    known = _REGISTRY.get(head.name)
    if known is not None and (known.__module__, known.__qualname__) != (head.__module__, head.__qualname__):
        raise ValueError(f"Two heads are named {head.name!r}: {known.__qualname__} and {head.__qualname__}")
    _REGISTRY[head.name] = head
    return head


def head_names() -> list[str]:
    """Names of all registered heads."""
    return sorted(_REGISTRY)


def build_head(name: str, spec: FeatureSpec, num_classes: int, **options: Any) -> ClassificationHead:
    """Build a head by name.

    Raises:
        CheckpointError: no head has that name.
    """
    if name not in _REGISTRY:
        raise CheckpointError(
            f"Classification head {name!r} is not known here; known are {', '.join(head_names())}. "
            "It was written by another version, or by a module of your own: set nnUNet_extTrainer to its folder."
        )
    return _REGISTRY[name](spec, num_classes, **options)


# they register themselves
from nnunet_3dct.networks.heads import case, detached, grid, lesion, memory_attention, simple  # noqa: E402

__all__ = [
    "ClassificationHead",
    "FeatureSpec",
    "UNetFeatures",
    "build_head",
    "case",
    "detached",
    "grid",
    "head_names",
    "lesion",
    "memory_attention",
    "register_head",
    "simple",
]
