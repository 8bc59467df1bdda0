"""Where in a network's features the evidence for a class lies: HiResCAM (Draelos & Carin 2020, arXiv:2011.08891)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nnunet_3dct.errors import NNUNet3DCTError

if TYPE_CHECKING:  # the heads use this module
    from nnunet_3dct.networks.features import UNetFeatures


def class_margin(class_logits: Tensor, label: int) -> Tensor:
    """Logit of a class above the mean of the others', ``(B,)``.

    What the softmax makes of the logits depends on their differences alone; a single logit may rise together with
    all others and mean nothing.
    """
    others = class_logits.sum(1) - class_logits[:, label]
    return class_logits[:, label] - others / (class_logits.shape[1] - 1)


def hirescam(head: nn.Module, features: UNetFeatures, label: int) -> list[Tensor]:
    """Gradient of the class margin times activation, summed over the channels of every map that the head reads.

    The head is run as it is, but for what keeps gradients from the network in training: ``detach`` and
    ``torch.no_grad`` are without effect. The segmentation logits are taken as given: a head that averages under the
    target is asked what there speaks for the class, not why the target is there. Only where a head reads nothing else
    are they a map like the others.

    Args:
        head: class logits ``(B, n)`` of features.
        features: of one pass; computed without gradient.
        label: the class.

    Returns:
        Signed maps ``(B, ...)`` in float32, each on the grid of a stage, fine to coarse and coarse to fine.

    Raises:
        NNUNet3DCTError: no gradient reaches any feature.
    """
    depth = len(features.encoder)
    found = _products(
        [*features.encoder, *features.decoder],
        lambda stages: head(features._replace(encoder=stages[:depth], decoder=stages[depth:])),
        label,
    ) or _products([features.logits], lambda logits: head(features._replace(logits=logits[0])), label)
    if not found:
        raise NNUNet3DCTError(
            f"Evidence of the head {getattr(head, 'name', type(head).__name__)!r}: expected class logits that have a "
            "gradient with respect to the network's features, found none. Let the head compute in PyTorch from what "
            "it is given, or give it a method `evidence` of its own (docs/new-head.md); or leave out --explain."
        )
    return found


def spread_over_patch(maps: Sequence[Tensor], patch_size: Sequence[int]) -> Tensor:
    """Sum of maps of several grids on the patch, ``(B, *patch_size)``, by linear interpolation.

    What a cell of a coarse grid holds is shared out among the voxels that it covers, so that maps of all grids count
    alike and their sum stays what it was.

    Args:
        maps: ``(B, ...)`` of 2 or 3 axes.
        patch_size: of as many axes.
    """
    mode = "trilinear" if len(patch_size) == 3 else "bilinear"
    voxels = torch.Size(patch_size).numel()
    total = maps[0].new_zeros((len(maps[0]), *patch_size))
    for found in maps:
        share = found[:, None] * (found[0].numel() / voxels)
        total += functional.interpolate(share, size=tuple(patch_size), mode=mode)[:, 0]
    return total


def _products(maps: Sequence[Tensor], classify: Callable[[list[Tensor]], Tensor], label: int) -> list[Tensor]:
    """Gradient times activation of those maps that have a gradient."""
    leaves = [feature.detach().float().requires_grad_() for feature in maps]
    with torch.enable_grad(), _SeeThrough():
        value = class_margin(classify(leaves).float(), label).sum()
    if not value.requires_grad:
        return []
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    pairs = zip(leaves, gradients, strict=True)
    return [(leaf.detach() * gradient).sum(1) for leaf, gradient in pairs if gradient is not None]


class _SeeThrough(TorchFunctionMode):
    """Code inside cannot cut the graph: heads do so for the sake of training, which this is not."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.detach, torch.detach):
            return args[0] if args else kwargs["input"]
        if func is torch._C._set_grad_enabled:  # what no_grad, enable_grad and set_grad_enabled come down to
            return None
        if func is Tensor.numpy:  # refuses what has a gradient
            return args[0].detach().numpy(*args[1:], **kwargs)
        return func(*args, **kwargs)
