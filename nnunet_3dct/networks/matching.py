"""Weights of a checkpoint that fit a network, though it was trained on other data, labels or channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.checkpoint import State

LEAST_SHARE = 0.5
ENCODER = "encoder."
# nnU-Net's decoders hold the encoder too, and its blocks hold their layers in a sequence too: the same under two names
ENCODER_AGAIN, LAYERS_AGAIN = "decoder.encoder.", ".all_modules."
SHOWN = 5


@dataclass(frozen=True)
class MatchedWeights:
    """What of a checkpoint fits a network.

    Attributes:
        source: name of the file, for messages.
        weights: those that fit, under the network's names.
        left_out: parameter of the network that nothing fits -> why, each once.
        unused: parameters of the checkpoint that have no place in the network.
        encoder_share: share of the encoder's weights that fit, by number of elements.
    """

    source: str
    weights: dict[str, Tensor]
    left_out: dict[str, str]
    unused: list[str]
    encoder_share: float

    @property
    def complete(self) -> bool:
        """Whether the checkpoint is one of this very network."""
        return not self.left_out and not self.unused

    @property
    def problems(self) -> list[str]:
        """A line for each parameter that does not fit, the encoder's first."""
        names = sorted(self.left_out, key=lambda name: not name.startswith(ENCODER))
        return [f"{name}: {self.left_out[name]}" for name in names] + [
            f"{n}: only in the checkpoint" for n in self.unused
        ]

    def describe(self) -> list[str]:
        """Lines for a log that name what is left out; none for a complete match."""
        if self.complete:
            return []
        return [
            f"{self.encoder_share:.0%} of the encoder's weights fit. Left out, as they do not fit "
            f"({len(self.left_out)} parameters begin untrained, {len(self.unused)} have no place in this network):",
            *(f"  {problem}" for problem in self.problems),
        ]


def match_weights(expected: State, found: State, source: str) -> MatchedWeights:
    """Choose the weights of a checkpoint that fit a network by name and shape.

    Args:
        expected: state of the network; meta tensors will do.
        found: of the checkpoint.
        source: name of the checkpoint, for messages.

    Raises:
        CheckpointError: fewer than half of the encoder's weights fit.
    """
    weights: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    for name, value in expected.items():
        other = _look_up(found, name)
        if other is not None and other.shape == value.shape:
            weights[name] = other
        elif not _is_second_name(name):
            left_out[name] = _shapes(value, other)
    unused = [name for name in found if name not in expected and not _is_second_name(name)]
    encoder = [name for name in expected if name.startswith(ENCODER) and not _is_second_name(name)]
    sizes = {name: expected[name].numel() for name in encoder}
    share = sum(size for name, size in sizes.items() if name in weights) / max(sum(sizes.values()), 1)
    matched = MatchedWeights(source, weights, left_out, unused, share)
    if share < LEAST_SHARE:
        problems = matched.problems
        raise CheckpointError(
            f"Checkpoint {source} belongs to another network: {share:.0%} of the encoder's weights fit, at least "
            f"{LEAST_SHARE:.0%} have to. Use one of the same plans and configuration, or plan this dataset with the "
            f"plans of that one (nnUNetv2_move_plans_between_datasets). {len(problems)} parameters differ:\n  "
            + "\n  ".join(problems[:SHOWN])
        )
    return matched


def encoder_part(state: State) -> dict[str, Tensor]:
    """The encoder in the state of a U-Net, under the encoder's own names; a state without any is taken for one."""
    for prefix in (ENCODER, ENCODER_AGAIN):
        part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if part:
            return part
    return dict(state)


def encoder_weights(expected: State, found: State, source: str, remedy: str) -> dict[str, Tensor]:
    """Weights for an encoder that is not trained further: all have to fit.

    Args:
        expected: state of the encoder.
        found: see :func:`encoder_part`; what has no place is left out.
        source: name of the checkpoint, for messages.
        remedy: what to do if they do not fit, for messages.

    Returns:
        Weights under the encoder's names; of layers with two names one may be missing.

    Raises:
        CheckpointError: weights are missing or of another shape.
    """
    weights: dict[str, Tensor] = {}
    problems = []
    fitting = total = 0
    for name, value in expected.items():
        other = found.get(name)
        if _is_second_name(name):
            continue
        total += value.numel()
        if other is not None and other.shape == value.shape:
            weights[name] = other
            fitting += value.numel()
        else:
            problems.append(f"{name}: {_shapes(value, other)}")
    if problems:
        raise CheckpointError(
            f"Encoder {source}: expected all its weights, as it is not trained further, found {fitting / total:.0%} "
            f"that fit. {remedy} {len(problems)} parameters differ:\n  " + "\n  ".join(problems[:SHOWN])
        )
    return weights


def _look_up(found: Mapping[str, Tensor], name: str) -> Tensor | None:
    """A parameter under either of the encoder's names."""
    if name.startswith(ENCODER_AGAIN):
        name = name.removeprefix("decoder.")
    if name.startswith(ENCODER) and name not in found:
        name = f"decoder.{name}"
    return found.get(name)


def _shapes(expected: Tensor, found: Tensor | None) -> str:
    if found is None:
        return "missing in the checkpoint"
    return f"expected shape {tuple(expected.shape)}, found {tuple(found.shape)}"


def _is_second_name(name: str) -> bool:
    return name.startswith(ENCODER_AGAIN) or LAYERS_AGAIN in name
