"""From the class logits of many forward passes to the class of one case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class CaseClass:
    """Class of one case.

    Attributes:
        probs: averaged class probabilities, sum 1.
        windows: number of sliding-window positions.
        passes_per_window: forward passes for each (1, or 1 + mirrored ones).
        folds: number of networks averaged.
        saw_target: False when no window showed any predicted target; then all windows count the same.
        window_weights: for each fold the weight of every window in the class, sum 1.
        columns: for each fold the features of the whole case, where its head reads those; see
            :class:`~nnunet_3dct.networks.case_layout.CaseLayout`.
    """

    probs: tuple[float, ...]
    windows: int
    passes_per_window: int
    folds: int
    saw_target: bool
    window_weights: tuple[tuple[float, ...], ...] = ()
    columns: tuple[Tensor, ...] = ()

    def describe(self) -> dict[str, Any]:
        """How it came about, for the class file."""
        described: dict[str, Any] = {
            "windows": self.windows,
            "passes_per_window": self.passes_per_window,
            "folds_averaged": self.folds,
            "windows_weighted_by_target": self.saw_target,
        }
        return {**described, "whole_case": True} if self.columns else described

    @property
    def pred(self) -> int:
        """Class with the highest probability."""
        return max(range(len(self.probs)), key=self.probs.__getitem__)


class ClassRecord:
    """Collects class logits and how much target each window showed, and averages them.

    Probabilities of the mirrored passes of one window are averaged, or the plain pass, which comes first, speaks
    alone; windows are averaged with the number of target voxels that the network itself finds in them as weights
    (equal weights when none shows any).

    Args:
        passes_per_window: consecutive passes that belong to one window.
        averages_mirrors: as the head has it.
    """

    def __init__(self, passes_per_window: int, averages_mirrors: bool = True) -> None:
        self.passes_per_window = passes_per_window
        self.averages_mirrors = averages_mirrors
        self._passes: list[tuple[Tensor | None, Tensor]] = []

    def add(self, class_logits: Tensor | None, target_voxels: Tensor) -> None:
        """Note passes in their order.

        Args:
            class_logits: ``(B, n)``; None if none of these passes has a say in the class.
            target_voxels: ``(B,)``.
        """
        voxels = target_voxels.detach().cpu().double()
        if class_logits is None:
            self._passes += [(None, seen) for seen in voxels]
        else:
            self._passes += zip(class_logits.detach().cpu().double().softmax(1), voxels, strict=True)

    def speaks(self, number: int) -> bool:
        """Whether a pass, counted from the first of the case, has a say in the class."""
        return self.averages_mirrors or number % self.passes_per_window == 0

    def clear(self) -> None:
        """Forget everything, for the next case."""
        self._passes.clear()

    def result(self, windows: int | None = None) -> CaseClass:
        """The class after all windows of a case; keeps what was collected until :meth:`clear`.

        Args:
            windows: of the case, if known: then the last passes that fill them count. What lies before is of an
                attempt at the same case that was broken off.

        Raises:
            RuntimeError: nothing was collected, or the passes do not fill the windows.
        """
        count = len(self._passes) if windows is None else windows * self.passes_per_window
        if count == 0 or count > len(self._passes) or count % self.passes_per_window:
            wanted = "windows" if windows is None else f"{windows} windows"
            raise RuntimeError(f"{len(self._passes)} passes do not make up {wanted} of {self.passes_per_window} passes")
        passes = self._passes[-count:]
        speaking = [probs for number, (probs, _) in enumerate(passes) if self.speaks(number)]
        windows = count // self.passes_per_window
        per_window = torch.stack(speaking).unflatten(0, (windows, -1)).mean(1)  # type: ignore[arg-type]
        weights = torch.stack([voxels for _, voxels in passes]).unflatten(0, (windows, -1)).mean(1)
        saw_target = bool(weights.sum() > 0)
        if not saw_target:
            weights = torch.ones_like(weights)
        mean = (weights[:, None] * per_window).sum(0) / weights.sum()
        shares = tuple((weights / weights.sum()).tolist())
        return CaseClass(tuple(mean.tolist()), windows, self.passes_per_window, 1, saw_target, (shares,))


def average_folds(results: Sequence[CaseClass]) -> CaseClass:
    """Mean of the probabilities of several networks on the same case."""
    mean = torch.tensor([r.probs for r in results], dtype=torch.float64).mean(0)
    first = results[0]
    return CaseClass(
        tuple(mean.tolist()),
        first.windows,
        first.passes_per_window,
        len(results),
        any(r.saw_target for r in results),
        tuple(weights for r in results for weights in r.window_weights),
        tuple(columns for r in results for columns in r.columns),
    )


def passes_per_window(mirror_axes: Sequence[int] | None) -> int:
    """Forward passes of nnU-Net's sliding window for one position: every combination of mirrored axes."""
    return 2 ** len(mirror_axes) if mirror_axes else 1
