"""The predictor of stage-2 models: one pass over a case gives both outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from nnunet_3dct.errors import CheckpointError, SettingsError
from nnunet_3dct.formats.calibration import read_temperature
from nnunet_3dct.formats.checkpoint import HEAD_STATE, fingerprint, head_config, read_checkpoint
from nnunet_3dct.inference.aggregation import CaseClass, average_folds
from nnunet_3dct.inference.backends import Backend, make_backend
from nnunet_3dct.inference.explanation import WindowExplainer, check_file_ending, explain_case
from nnunet_3dct.inference.windows import Windows, empty_window_rule, mirrored_passes
from nnunet_3dct.networks.build import build_unet, load_saved_network
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.runtime import is_out_of_memory, keep_freed_memory
from nnunet_3dct.upstream import ConfigurationManager, LabelManager, PlansManager, determine_num_input_channels


@dataclass(frozen=True)
class CasePrediction:
    """What the network says of one preprocessed case.

    Attributes:
        logits: segmentation logits ``(L, Z, Y, X)`` in the network's spacing, in half precision.
        case_class: class probabilities and how they came about.
        evidence: for the predicted class, ``(Z, Y, X)`` in the network's spacing; None if it was not asked for.
    """

    logits: torch.Tensor
    case_class: CaseClass
    evidence: torch.Tensor | None = None


class MultiTaskPredictor:
    """Loads stage-2 checkpoints and predicts preprocessed cases; windows and their weights are nnU-Net's.

    Every fold keeps its own network in memory, in a runtime of :mod:`nnunet_3dct.inference.backends`. When the
    device runs out of memory, fewer passes go through the network at once, then logits are summed on the CPU; what
    worked is kept for the cases that follow.

    Args:
        device: where the network runs.
        tta: mirroring, see :func:`~nnunet_3dct.inference.windows.mirrored_passes`.
        step_size: share of the patch between windows.
        backend, precision: see :func:`~nnunet_3dct.inference.backends.make_backend`.
        skip_empty: leave out windows in which there is nothing but air, see
            :func:`~nnunet_3dct.inference.windows.empty_window_rule`.
        sum_on_device: whether logits are summed on a GPU; else on the CPU.
        explain: also say where the evidence for the predicted class lies; takes a pass in PyTorch for each window.

    Attributes:
        plans_manager, configuration_manager, label_manager, dataset_json: nnU-Net's, of the model.
        trainer_name: of the first fold.
        allowed_mirroring_axes: spatial axes that training mirrored.
        head_config: describes the head.
        target: finds the voxels that carry the class.
        backends: one for each fold.
        head_weights: fold -> fingerprint of its head.
        temperature: of the class probabilities, None for none; see :mod:`nnunet_3dct.formats.calibration`.
        calibration_note: why the model's calibration is not applied, None if there is nothing to say.
    """

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    label_manager: LabelManager
    dataset_json: dict[str, Any]
    trainer_name: str
    allowed_mirroring_axes: Sequence[int] | None
    head_config: dict[str, Any]
    target: TargetLabels
    backends: list[Backend]
    head_weights: dict[str, str]
    temperature: float | None
    calibration_note: str | None
    _explainers: Sequence[WindowExplainer] = ()

    def __init__(
        self,
        device: torch.device,
        tta: str = "full",
        step_size: float = 0.5,
        backend: str = "auto",
        precision: str = "auto",
        skip_empty: bool = False,
        sum_on_device: bool = True,
        explain: bool = False,
    ) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self.device = device
        self.tta = tta
        self.step_size = step_size
        self.backend = backend
        self.precision = precision
        self.skip_empty = skip_empty
        self.sum_on_device = sum_on_device and device.type == "cuda"
        self.explain = explain

    def load(
        self, model_folder: Path, folds: Sequence[int | str], checkpoint_name: str = "checkpoint_final.pth"
    ) -> None:
        """Read plans, dataset and one checkpoint for each fold.

        Args:
            model_folder: with ``plans.json``, ``dataset.json`` and ``fold_X``.
            folds: to average.
            checkpoint_name: file inside each fold folder.

        Raises:
            CheckpointError: a file is missing or unreadable, holds no head, belongs to another network, or
                the folds' heads differ.
            SettingsError: the runtime or the precision asked for is not there, or the configuration is a cascade.
            NNUNet3DCTError: maps of the evidence are asked for, and this head has none.
        """
        for name in ("plans.json", "dataset.json"):
            if not (model_folder / name).is_file():
                raise CheckpointError(
                    f"Model folder {model_folder}: expected {name}, found none. Check -d, -tr, -p and -c."
                )
        paths = [model_folder / f"fold_{fold}" / checkpoint_name for fold in folds]
        checkpoints = [read_checkpoint(path, mmap=True) for path in paths]
        configs = [head_config(c, str(path)) for c, path in zip(checkpoints, paths, strict=True)]
        for path, config in zip(paths, configs, strict=True):
            if config != configs[0]:
                raise CheckpointError(
                    f"Checkpoint {path}: expected the same head as in {paths[0]} ({configs[0]}), found "
                    f"{config}. Folds that are averaged must share classes and head."
                )
        self.head_weights = {str(f): fingerprint(c[HEAD_STATE]) for f, c in zip(folds, checkpoints, strict=True)}
        self.temperature, self.calibration_note = read_temperature(model_folder, self.head_weights)
        first = checkpoints[0]
        self.dataset_json = json.loads((model_folder / "dataset.json").read_text())
        if self.explain:
            check_file_ending(self.dataset_json["file_ending"])
        self.plans_manager = PlansManager(json.loads((model_folder / "plans.json").read_text()))
        self.configuration_manager = self.plans_manager.get_configuration(first["init_args"]["configuration"])
        if self.configuration_manager.previous_stage_name is not None:
            raise SettingsError(
                f"Configuration {first['init_args']['configuration']}: expected one that needs no previous stage, "
                f"found a cascade after {self.configuration_manager.previous_stage_name}. nnUNetv2_predict with "
                "-prev_stage_predictions gives its segmentation."
            )
        self.label_manager = self.plans_manager.get_label_manager(self.dataset_json)
        self.trainer_name = first.get("trainer_name", "")
        self.allowed_mirroring_axes = first.get("inference_allowed_mirroring_axes")
        self.head_config = configs[0]
        self.target = TargetLabels(self.label_manager, configs[0].get("target_labels"))
        channels = determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json)
        patch_size = tuple(self.configuration_manager.patch_size)
        networks = [self._network(c, path) for c, path in zip(checkpoints, paths, strict=True)]
        self.backends = [
            make_backend(network, (channels, *patch_size), self.device, self.backend, self.precision)
            for network in networks
        ]
        self._windows = Windows(
            patch_size,
            self.step_size,
            mirrored_passes(self.allowed_mirroring_axes, self.tta),
            self.label_manager.num_segmentation_heads,
            self.target,
            empty_window_rule(self.plans_manager, self.configuration_manager) if self.skip_empty else None,
        )
        self._ways = list(ways_to_run(self.backends[0], self.device, self.sum_on_device))
        if self.explain:
            self._explainers = [WindowExplainer(n, self.device, self._torch_precision()) for n in networks]
            self._explainers[0](torch.zeros(channels, *patch_size), 0)  # a head without gradient is told of now

    def _torch_precision(self) -> str:
        """That of the network in PyTorch; a runtime's own on the CPU does not concern it."""
        return self.backends[0].precision if self.device.type == "cuda" else "f32"

    def _network(self, checkpoint: Mapping[str, Any], path: Path) -> MultiTaskUNet:
        unet = build_unet(self.plans_manager, self.configuration_manager, self.dataset_json)
        return load_saved_network(checkpoint, self.head_config, unet, str(path))

    def predict_case(self, data: torch.Tensor) -> CasePrediction:
        """Predict one case.

        Args:
            data: preprocessed image ``(C, Z, Y, X)``.

        Raises:
            RuntimeError: not even one pass fits the device (``torch.OutOfMemoryError``), or the pass failed.
            NNUNet3DCTError: the evidence is not finite.
        """
        prediction = self._predict_on_device(data)
        if not self._explainers:
            return prediction
        return replace(prediction, evidence=explain_case(self._explainers, self._windows, data, prediction.case_class))

    def _predict_on_device(self, data: torch.Tensor) -> CasePrediction:
        """Predict with as many passes at once as the memory allows."""
        while True:
            try:
                return self._predict(data, *self._ways[0])
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(self._ways) == 1:
                    raise
                self._ways.pop(0)
            torch.cuda.empty_cache()  # after the exception has let go of its tensors
            at_once, results_device = self._ways[0]
            tqdm.write(f"Out of GPU memory: going on with {at_once} passes at once, sums on {results_device.type}.")

    @torch.inference_mode()
    def _predict(self, data: torch.Tensor, at_once: int, results_device: torch.device) -> CasePrediction:
        classes: list[CaseClass] = []
        total: torch.Tensor | None = None
        for backend in self.backends:
            logits, case_class = self._windows.predict(backend, data, at_once, results_device)
            total = logits if total is None else total.add_(logits)
            classes.append(case_class)
        assert total is not None, "load comes first"
        if len(classes) > 1:
            total /= len(classes)
        return CasePrediction(total, average_folds(classes))

    def describe(self) -> dict[str, Any]:
        """What produced a prediction, for reports and manifests."""
        return {
            "trainer": self.trainer_name,
            "head_weights": self.head_weights,
            "tta": self.tta,
            "mirror_axes": list(self.allowed_mirroring_axes or []) if self.tta != "none" else [],
            "step_size": self.step_size,
            "skip_empty": self.skip_empty,
            **self.backends[0].describe(),
        }


def ways_to_run(backend: Backend, device: torch.device, sum_on_device: bool) -> Iterator[tuple[int, torch.device]]:
    """Passes at once and where logits are summed: first the fastest, at last what takes least memory."""
    at_once = backend.windows_at_once
    if sum_on_device:
        while at_once > 1:
            yield at_once, device
            at_once //= 2
        yield 1, device
        at_once = backend.windows_at_once
    while at_once > 1:
        yield at_once, torch.device("cpu")
        at_once //= 2
    yield 1, torch.device("cpu")
