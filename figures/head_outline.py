"""What the figure says of a classification head: found by following the features of one patch through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from nnunet_3dct.errors import NNUNet3DCTError
from nnunet_3dct.networks.heads import ClassificationHead, UNetFeatures

Shape = tuple[int, ...]
Tags = frozenset[str]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# of what a head does to features before its layers, these change no value
_NO_ARITHMETIC = {"__get__", "__getitem__", "float", "detach", "flatten", "view", "reshape", "transpose", "size", "to"}


@dataclass(frozen=True)
class Layer:
    """One call of a layer, or several alike in a row.

    Attributes:
        name: class of the layer; with those that follow and keep its shape without parameters (``Linear, ReLU``).
        inputs, output: shapes without the batch.
        parameters: of all ``repeats`` together.
        reads: summaries that its input depends on.
        repeats: calls of equal layers in a row.
    """

    name: str
    inputs: Shape
    output: Shape
    parameters: int
    reads: Tags
    repeats: int = 1


@dataclass(frozen=True)
class Lane:
    """From features to one tensor of :meth:`ClassificationHead.summarize`, and the layers that see this one alone.

    Attributes:
        features: ``encoder 0`` (fine) and up, ``decoder 0`` (coarse) and up, ``logits``.
        operation: how they are summarised.
        shape: of the summary, without the batch.
        layers: in their order; empty where there is one lane.
    """

    features: tuple[str, ...]
    operation: str
    shape: Shape
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class HeadOutline:
    """A head, as the figure shows it.

    Attributes:
        name, title, text: key in the registry, class, first sentence of its docstring.
        lanes: one for each tensor of the summary.
        trunk: layers that see several lanes, or all layers where there is one lane.
        own: parameters that belong to the head itself rather than to a layer, by name with their shape.
        trained: features that the gradient of the class loss reaches.
        parameters, num_classes: of the head.
    """

    name: str
    title: str
    text: str
    lanes: tuple[Lane, ...]
    trunk: tuple[Layer, ...]
    own: tuple[tuple[str, Shape], ...]
    trained: Tags
    parameters: int
    num_classes: int


class Following(TorchFunctionMode):
    """Notes of every tensor which of the marked ones it was computed from, and the names of the functions used."""

    def __init__(self, marks: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__()
        marked = list(marks)
        self.tags: dict[int, Tags] = {id(tensor): frozenset({name}) for name, tensor in marked}
        self.functions: list[tuple[str, Tags]] = []
        self._alive: list[Any] = [tensor for _, tensor in marked]  # so that no id is used twice

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tags = self.of((args, kwargs))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self._alive += made
        self.tags.update({id(tensor): tags for tensor in made})
        if made and tags:
            self.functions.append((getattr(func, "__name__", str(func)), tags))
        return result

    def of(self, tensors: Any) -> Tags:
        """Names of the marked tensors from which any of these was computed."""
        found = (self.tags.get(id(leaf), frozenset()) for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor))
        return frozenset().union(*found)


def outline_head(head: ClassificationHead, features: UNetFeatures) -> HeadOutline:
    """Follow the features of one patch through a head.

    Args:
        head: any head that gives ``summarize`` and ``classify``.
        features: with gradient, of one forward pass of a batch of one.

    Raises:
        NNUNet3DCTError: the head gives ``forward`` as a whole.
    """
    if type(head).summarize is ClassificationHead.summarize:
        raise NNUNet3DCTError(
            f"Head {head.name!r}: expected summarize and classify, found forward as a whole. The figure needs the two."
        )
    named = {f"encoder {n}": x for n, x in enumerate(features.encoder)}
    named |= {f"decoder {n}": x for n, x in enumerate(features.decoder)}
    named["logits"] = features.logits
    with Following(named.items()) as origins, _calls(head, origins) as pooling:
        summary = head.summarize(features)
    read = [tuple(name for name in named if name in origins.of(tensor)) for tensor in summary]
    with Following((str(n), tensor) for n, tensor in enumerate(summary)) as lanes, _calls(head, lanes) as calls:
        logits = head.classify(*summary)
    layers = _joined(calls)
    split = len(summary) > 1
    gradients = torch.autograd.grad(logits.sum(), list(named.values()), allow_unused=True)
    return HeadOutline(
        name=head.name,
        title=type(head).__name__,
        text=(type(head).__doc__ or "").strip().partition("\n\n")[0].replace("\n", " "),
        lanes=tuple(
            Lane(
                read[n],
                *_operation(pooling, origins, read[n], tuple(tensor.shape[1:])),
                tuple(layer for layer in layers if split and layer.reads == {str(n)}),
            )
            for n, tensor in enumerate(summary)
        ),
        trunk=_repeated(layer for layer in layers if not split or len(layer.reads) != 1),
        own=tuple((name, tuple(p.shape)) for name, p in head.named_parameters(recurse=False)),
        trained=frozenset(name for name, gradient in zip(named, gradients, strict=True) if gradient is not None),
        parameters=sum(p.numel() for p in head.parameters()),
        num_classes=logits.shape[1],
    )


@contextmanager
def _calls(head: nn.Module, following: Following) -> Iterator[list[Layer]]:
    """The layers that are called inside, in their order; containers are entered, other layers are not."""
    found: list[Layer] = []

    def note(module: nn.Module, args: Any, output: Tensor) -> None:
        parameters = sum(p.numel() for p in module.parameters())
        inputs, shape = tuple(args[0].shape[1:]), tuple(output.shape[1:])
        found.append(Layer(type(module).__name__, inputs, shape, parameters, following.of(args)))

    handles = [module.register_forward_hook(note) for module in _layers(head)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, _CONTAINERS):
            yield from _layers(child)
        elif not isinstance(child, nn.Identity):
            yield child


def _operation(pooling: list[Layer], origins: Following, read: tuple[str, ...], shape: Shape) -> tuple[str, Shape]:
    """Name and output of the layer that summarises these features; without one, the functions that do."""
    layers = [layer for layer in pooling if layer.reads == set(read)]
    if layers:
        return ", ".join(layer.name for layer in layers), layers[-1].output
    functions = [name for name, tags in origins.functions if tags <= set(read) and name not in _NO_ARITHMETIC]
    return (", ".join(functions) if len(functions) in (1, 2) else "summarize"), shape


def _joined(layers: Iterable[Layer]) -> list[Layer]:
    """Activations and dropout written behind the layer that they follow."""
    joined: list[Layer] = []
    for layer in layers:
        before = joined[-1] if joined else None
        if before and before.parameters and not layer.parameters and before.output == layer.inputs == layer.output:
            joined[-1] = replace(before, name=f"{before.name}, {layer.name}")
        else:
            joined.append(layer)
    return joined


def _repeated(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Equal layers in a row as one."""
    merged: list[Layer] = []
    for layer in layers:
        if merged and replace(merged[-1], repeats=1, parameters=merged[-1].parameters // merged[-1].repeats) == layer:
            parameters = merged[-1].parameters + layer.parameters
            merged[-1] = replace(merged[-1], repeats=merged[-1].repeats + 1, parameters=parameters)
        else:
            merged.append(layer)
    return tuple(merged)
