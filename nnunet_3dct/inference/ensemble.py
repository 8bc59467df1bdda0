"""The networks of all folds on one preprocessed case, with as many passes at once as the memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nnunet_3dct.inference.aggregation import CaseClass, average_folds
from nnunet_3dct.inference.backends.base import Backend
from nnunet_3dct.inference.explanation import WindowExplainer, explain_case
from nnunet_3dct.inference.windows import NOTHING, AboutCase, Windows
from nnunet_3dct.runtime import Message, is_out_of_memory, prediction_switches

CPU = torch.device("cpu")
Way = tuple[int, torch.device]  # passes at once, and where logits are summed


def say_nothing(text: str) -> None:
    """Where nobody listens."""


@dataclass(frozen=True)
class NetworkOutput:
    """What the networks say of one preprocessed case.

    Attributes:
        logits: segmentation logits ``(L, Z, Y, X)`` in the network's spacing, in half precision.
        case_class: class probabilities and how they came about.
        evidence: for the predicted class, ``(Z, Y, X)`` in the network's spacing; None if it was not asked for.
    """

    logits: Tensor
    case_class: CaseClass
    evidence: Tensor | None = None


class Ensemble:
    """Networks whose answers are averaged.

    When the device runs out of memory, fewer passes go through the network at once, then logits are summed on the
    CPU. Cases at least as large begin with what worked; smaller ones begin with the fastest way again.

    Args:
        backends: one for each fold.
        windows: how a case is cut.
        sum_on_device: whether logits are summed on a GPU; else on the CPU.
        explainers: one for each fold, where the evidence is asked for.
        on_message: told when a case has to be run in another way.
        ways: see :func:`ways_to_run`, from which they are by default.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        windows: Windows,
        *,
        sum_on_device: bool = True,
        explainers: Sequence[WindowExplainer] = (),
        on_message: Message = say_nothing,
        ways: Sequence[Way] | None = None,
    ) -> None:
        self.backends = backends
        self.windows = windows
        self.explainers = explainers
        self.on_message = on_message
        self.ways = list(ways or ways_to_run(backends[0], sum_on_device))
        self._too_large: dict[Way, int] = {}  # voxels of the smallest case that did not fit

    def predict(self, data: Tensor, about: AboutCase = NOTHING) -> NetworkOutput:
        """Predict one case.

        Args:
            data: preprocessed image ``(C, Z, Y, X)``.
            about: what else is known of the case.

        Raises:
            RuntimeError: not even one pass fits the device (``torch.OutOfMemoryError``), or the pass failed.
            NNUNet3DCTError: the evidence is not finite.
        """
        with prediction_switches(self.backends[0].device, self.backends[0].precision):
            output = self._predict_as_fits(data, about)
            return replace(output, evidence=self._explain(data, output.case_class)) if self.explainers else output

    def _predict_as_fits(self, data: Tensor, about: AboutCase) -> NetworkOutput:
        ways = [way for way in self.ways if data.numel() < self._too_large.get(way, data.numel() + 1)]
        ways = ways or self.ways[-1:]
        for way, following in zip(ways, [*ways[1:], None], strict=True):
            try:
                return self._predict(data, about, *way)
            except RuntimeError as error:
                if following is None or not is_out_of_memory(error):
                    raise
            self._too_large[way] = min(data.numel(), self._too_large.get(way, data.numel()))
            self._free_memory()  # after the exception has let go of its tensors
            at_once, results_device = following
            self.on_message(
                f"Out of GPU memory: going on with {at_once} passes at once, sums on {results_device.type}."
            )
        raise AssertionError("the last way returns or raises")

    @torch.inference_mode()
    def _predict(self, data: Tensor, about: AboutCase, at_once: int, results_device: torch.device) -> NetworkOutput:
        classes: list[CaseClass] = []
        total: Tensor | None = None
        for backend in self.backends:
            logits, case_class = self.windows.predict(backend, data, at_once, results_device, about)
            total = logits if total is None else total.add_(logits)
            classes.append(case_class)
        assert total is not None
        if len(classes) > 1:
            total /= len(classes)
        return NetworkOutput(total, average_folds(classes))

    def _explain(self, data: Tensor, case_class: CaseClass) -> Tensor:
        """Evidence on the device or, where its memory runs out, on the CPU."""
        try:
            return explain_case(self.explainers, self.windows, data, case_class)
        except RuntimeError as error:
            if not is_out_of_memory(error) or self.explainers[0].device.type == "cpu":
                raise
        self._free_memory()
        self.on_message("Out of GPU memory: the evidence is looked for on the CPU.")
        devices = [explainer.device for explainer in self.explainers]
        try:
            for explainer in self.explainers:
                explainer.move(CPU)
            return explain_case(self.explainers, self.windows, data, case_class)
        finally:
            for explainer, device in zip(self.explainers, devices, strict=True):
                explainer.move(device)

    def _free_memory(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def ways_to_run(backend: Backend, sum_on_device: bool) -> Iterator[Way]:
    """Passes at once and where logits are summed: first the fastest, at last what takes least memory."""
    devices = [backend.device, CPU] if sum_on_device and backend.device.type == "cuda" else [CPU]
    for device in devices:
        at_once = backend.windows_at_once
        while at_once > 1:
            yield at_once, device
            at_once //= 2
        yield 1, device
