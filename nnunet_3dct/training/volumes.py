"""Whole preprocessed volumes, and what a network says of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_3dct.inference.aggregation import CaseClass, passes_per_window
from nnunet_3dct.inference.backends.torch_backend import TorchBackend
from nnunet_3dct.inference.ensemble import Ensemble
from nnunet_3dct.inference.recording import Recorder, RecordingNetwork, RecordingPredictor
from nnunet_3dct.inference.windows import NOTHING, AboutCase, Windows
from nnunet_3dct.networks.heads.base import WholeCaseHead
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.training.progress import Lines, Say
from nnunet_3dct.upstream import convert_labelmap_to_one_hot


class WholeVolumes:
    """Preprocessed cases as the network takes them.

    Args:
        dataset: nnU-Net's, with ``identifiers`` and ``load_case``.
        one_hot: foreground labels of the previous stage, which a cascade's network gets as channels; None for a
            network that stands alone.
        about: what else is known of a case, by its identifier and nnU-Net's properties.
    """

    def __init__(
        self,
        dataset: Any,
        one_hot: Sequence[int] | None = None,
        about: Callable[[str, dict[str, Any]], AboutCase] = lambda case, properties: NOTHING,
    ) -> None:
        self.dataset = dataset
        self.one_hot = one_hot
        self._about = about
        self._properties: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.dataset.identifiers)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Case and image ``(C, Z, Y, X)``."""
        for case in self.dataset.identifiers:
            data, _, previous, self._properties[str(case)] = self.dataset.load_case(case)
            data = np.asarray(data[:])
            if self.one_hot is not None:
                channels = convert_labelmap_to_one_hot(previous[:], self.one_hot, output_dtype=data.dtype)
                data = np.vstack((data, channels))
            yield str(case), torch.tensor(data)

    def about(self, case: str) -> AboutCase:
        """What else is known of a case that was iterated over."""
        return self._about(case, self._properties[case])


@dataclass(frozen=True)
class VolumeRunner:
    """Runs a training's network over whole volumes, each process over its share of the cases.

    Attributes:
        network: of the training.
        compiled: the same, compiled if training compiled it.
        target: finds the target in the segmentation logits.
        predictor_for: makes the predictor that runs a recorder.
        volumes_of: this process's share of a list of cases.
        windows: how a case is cut, for heads of whole cases.
        device: where the network lies.
        say: logs a line.
    """

    network: MultiTaskUNet
    compiled: nn.Module
    target: TargetLabels
    predictor_for: Callable[[Recorder], RecordingPredictor]
    volumes_of: Callable[[list[str]], WholeVolumes]
    windows: Windows
    device: torch.device
    say: Say

    def classify(self, cases: list[str]) -> dict[str, CaseClass]:
        """Class of each case by sliding window without mirroring."""
        if isinstance(self.network.cls_head, WholeCaseHead):
            return dict(self._whole_cases(cases, "Class"))
        recorder = RecordingNetwork(self.compiled, self.target, passes_per_window(None))
        classes: dict[str, CaseClass] = {}
        for case, image, predictor in self._over(cases, "Class", recorder):
            predictor.predict_sliding_window_return_logits(image)
            classes[case] = recorder.result()
        return classes

    def columns(self, cases: list[str]) -> dict[str, np.ndarray]:
        """Features of each case for a head of whole cases, ``(width,)``, as prediction computes them."""
        return {case: found.columns[0].numpy() for case, found in self._whole_cases(cases, "Features")}

    def _whole_cases(self, cases: list[str], what: str) -> Iterator[tuple[str, CaseClass]]:
        volumes, lines = self.volumes_of(cases), Lines(self.say)
        with self._evaluating():
            backend = TorchBackend(self.network, self.device, compile_network=False)
            network = Ensemble([backend], self.windows, on_message=self.say)  # runs a case in less memory if it has to
            for number, (case, image) in enumerate(volumes):
                yield case, network.predict(image, volumes.about(case)).case_class
                lines.offer(f"{what} of whole volumes: {number + 1} of {len(volumes)} cases")

    def _over(
        self, cases: list[str], what: str, recorder: Recorder
    ) -> Iterator[tuple[str, Tensor, RecordingPredictor]]:
        """Each case of this process's share with its image and a predictor that runs the recorder."""
        volumes, predictor, lines = self.volumes_of(cases), self.predictor_for(recorder), Lines(self.say)
        with self._evaluating():
            for number, (case, image) in enumerate(volumes):
                yield case, image, predictor
                lines.offer(f"{what} of whole volumes: {number + 1} of {len(volumes)} cases")

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The network as prediction runs it; deep supervision is restored afterwards."""
        decoder = self.network.decoder
        before, decoder.deep_supervision = decoder.deep_supervision, False
        self.compiled.eval()
        try:
            yield
        finally:
            decoder.deep_supervision = before
