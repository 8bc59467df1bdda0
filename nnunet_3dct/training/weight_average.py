"""Moving average of the weights: what validates and predicts, while training goes on with the weights themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.run_record import Averaging


def decay_of(update: int, decay: float) -> float:
    """Decay of one update: lower at first, so that the weights a training began with fade in a short one too.

    The average reaches back over about a ninth of the updates so far, until that is what ``decay`` says (the warm-up of
    TensorFlow's ``ExponentialMovingAverage`` and of timm).

    Args:
        update: how many came before.
        decay: in the long run.
    """
    return min(decay, (1 + update) / (10 + update))


class WeightAverage:
    """Exponential moving average of a network's parameters, which can be put in the network's place and back.

    Values are swapped in place: the network may be compiled or wrapped for several processes, each of which makes the
    same average of the same weights. Buffers, such as the running statistics of a head, are averages of their own and
    are taken from the network as they are at the last update.

    Args:
        network: that is trained; neither compiled nor wrapped.
        decay: between 0 and 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self._network = network
        self._other = AveragedModel(network, multi_avg_fn=self._average).requires_grad_(False)
        self._updates = 0
        self._in_use = False

    def _average(self, averaged: tuple[Tensor, ...] | list[Tensor], current: Sequence[Tensor], _: object) -> None:
        get_ema_multi_avg_fn(decay_of(self._updates, self.decay))(averaged, current, _)

    def update(self) -> None:
        """Take up the network's weights after a step."""
        if self._in_use:
            raise RuntimeError("expected the trained weights in the network, found their average")
        self._other.update_parameters(self._network)
        self._updates += 1

    def put_in_place(self) -> None:
        """From now on the network holds the average; before the first update the weights as they are."""
        if not self._in_use:
            if self._updates == 0:
                self._other.module.load_state_dict(self._network.state_dict())
            self._swap()

    def put_back(self) -> None:
        """From now on the network holds the weights that are trained."""
        if self._in_use:
            self._swap()

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the network's place for a while; as before afterwards."""
        before = self._in_use
        self.put_in_place()
        try:
            yield
        finally:
            if not before:
                self.put_back()

    @torch.no_grad()
    def _swap(self) -> None:
        ours, theirs = (chain(m.parameters(), m.buffers()) for m in (self._network, self._other.module))
        for mine, other in zip(ours, theirs, strict=True):
            kept = mine.detach().clone()
            mine.copy_(other)
            other.copy_(kept)
        self._in_use = not self._in_use

    def state(self) -> Averaging:
        """What a checkpoint needs beside the average itself, for training to go on; call it while that is in place."""
        if not self._in_use:
            raise RuntimeError("expected the average in the network's place")
        return Averaging(decay=self.decay, updates=self._updates, trained_weights=self._other.module.state_dict())

    def restore(self, state: Averaging) -> None:
        """Go on from a checkpoint whose average the network has loaded."""
        self._other.module.load_state_dict(state["trained_weights"])
        self._updates = state["updates"]
        self._other.n_averaged.fill_(self._updates)
        self._in_use = True


def check_same_decay(expected: float | None, decay: float | None, output_folder: str) -> None:
    """A resumed training goes on with the average that it began with.

    Args:
        expected: decay of the checkpoint, None where its weights are not averaged.
        decay: of the settings.
        output_folder: of the run, for the message.

    Raises:
        CheckpointError: one of them has an average and the other none, or another one.
    """
    if expected != decay:
        restore = "unset NNUNETV2_MT_EMA" if expected is None else f"set NNUNETV2_MT_EMA={expected}"
        raise CheckpointError(
            f"{output_folder}: training cannot be resumed, NNUNETV2_MT_EMA: expected {expected}, found {decay}. "
            f"To go on, {restore}; or train anew with another nnUNet_results."
        )
