"""A trained stage-2 model in memory: plans, networks in their runtimes, windows, calibration."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from typing_extensions import TypedDict

from nnunet_3dct.errors import CheckpointError, ClassLabelsError, SettingsError
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.calibration import read_temperature
from nnunet_3dct.formats.checkpoint import Checkpoint, HeadConfig, fingerprint, read_checkpoint
from nnunet_3dct.formats.class_labels import check_class_names
from nnunet_3dct.formats.covariate_encoding import CovariateEncoding
from nnunet_3dct.formats.dataset_json import num_channels
from nnunet_3dct.formats.evidence_files import ENDINGS
from nnunet_3dct.inference.backends import Backend, make_backend
from nnunet_3dct.inference.ensemble import Ensemble, NetworkOutput, say_nothing
from nnunet_3dct.inference.explanation import WindowExplainer
from nnunet_3dct.inference.options import PredictionOptions
from nnunet_3dct.inference.reasons import Intensities
from nnunet_3dct.inference.unusual import SeenSizes
from nnunet_3dct.inference.windows import NOTHING, AboutCase, Windows, empty_window_rule, mirrored_passes
from nnunet_3dct.networks.build import build_unet, load_saved_network
from nnunet_3dct.networks.heads.case import CaseHead
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.runtime import Message, choose_device
from nnunet_3dct.upstream import PlansManager, determine_num_input_channels

DatasetJson = dict[str, Any]
KNOWN_CASES = "known_cases"  # option of a head: how many training cases it remembers
COVARIATES = "covariates"  # option of a head: CovariateEncoding.to_dict()


class ProducedBy(TypedDict):
    """What produced a prediction, for class files and manifests.

    ``model`` is a fingerprint of the weights of U-Net and head of all folds; with the other keys but ``device`` and
    the temperature it decides the answer.
    """

    trainer: str
    model: str
    head_weights: dict[str, str]
    checkpoint: str
    folds: list[int | str]
    tta: str
    mirror_axes: list[int]
    step_size: float
    skip_empty: bool
    backend: str
    precision: str
    device: str


class TrainedModel:
    """A model that predicts preprocessed cases; windows and their weights are nnU-Net's.

    Every fold keeps its own network in memory, in a runtime of :mod:`nnunet_3dct.inference.backends`.

    Args:
        folder: with ``plans.json``, ``dataset.json`` and ``fold_X``.
        folds: to average.
        checkpoint_name: file inside each fold folder.
        options: how to predict.
        on_message: told of what takes long or goes another way.

    Attributes:
        plans_manager, configuration_manager, label_manager, dataset_json: nnU-Net's, of the model.
        trainer_name: of the first fold.
        allowed_mirroring_axes: spatial axes that training mirrored.
        head_config: describes the head of the first fold; the others differ from it in means and categories of
            covariates alone.
        encodings: of the covariates that the model was trained with, one for each fold; empty for none.
        class_names: of the classes 0, 1, ..., None if the model names none, or not as many as it has classes.
        target: finds the voxels that carry the class.
        backends: one for each fold.
        seen_sizes: spacing and extent of the training images, None where the model folder does not tell.
        intensities: how CT intensities were normalised, None for anything else.
        temperature: of the class probabilities, None for none; see :mod:`nnunet_3dct.formats.calibration`.
        calibration_note: why the model's calibration is not applied, None if there is nothing to say.
        seconds_loading: that all this took.

    Raises:
        CheckpointError: a file is missing or unreadable, holds no head, belongs to another network, or the folds'
            heads differ.
        SettingsError: device, runtime or precision are not there, or the configuration is a cascade.
        NNUNet3DCTError: maps of the evidence are asked for, and this head has none.
    """

    def __init__(
        self,
        folder: Path,
        folds: Sequence[int | str],
        checkpoint_name: str = "checkpoint_final.pth",
        options: PredictionOptions | None = None,
        on_message: Message = say_nothing,
    ) -> None:
        start = time.perf_counter()
        self.options = options = options or PredictionOptions()
        self.device = choose_device(options.device)
        self.folds, self.checkpoint_name = list(folds), checkpoint_name
        plans, self.dataset_json = (_described(folder, name) for name in ("plans.json", "dataset.json"))
        checkpoints = _checkpoints([folder / f"fold_{fold}" / checkpoint_name for fold in folds])
        first = checkpoints[0]
        self.head_config = first.head_config
        self.encodings = [e for e in map(_encoding, (c.head_config for c in checkpoints)) if e is not None]
        self.class_names = _class_names(first.head_config, folder, on_message)
        self.trainer_name = first.trainer_name
        self.allowed_mirroring_axes: Sequence[int] | None = first.get("inference_allowed_mirroring_axes")
        self.num_channels = num_channels(self.dataset_json)
        if options.explain:
            _check_file_ending(self.dataset_json["file_ending"])
        self.plans_manager = PlansManager(plans)
        self.configuration_manager = self.plans_manager.get_configuration(first.configuration)
        if self.configuration_manager.previous_stage_name is not None:
            raise SettingsError(
                f"Configuration {first.configuration}: expected one that needs no previous stage, "
                f"found a cascade after {self.configuration_manager.previous_stage_name}. nnUNetv2_predict with "
                "-prev_stage_predictions gives its segmentation."
            )
        self.label_manager = self.plans_manager.get_label_manager(self.dataset_json)
        self.target = TargetLabels(self.label_manager, self.head_config.get("target_labels"))
        self.head_weights = {str(f): fingerprint(c.head_weights) for f, c in zip(folds, checkpoints, strict=True)}
        self.fingerprint = _fingerprint(checkpoints, self.head_weights)
        self.temperature, self.calibration_note = read_temperature(folder, self.head_weights)
        self.seen_sizes = SeenSizes.of_model(folder, self.plans_manager.transpose_forward)
        self.intensities = Intensities.of(
            self.configuration_manager.normalization_schemes,
            self.plans_manager.foreground_intensity_properties_per_channel,
        )
        self._start_networks([self._network(checkpoint) for checkpoint in checkpoints], on_message)
        self.seconds_loading = time.perf_counter() - start

    @property
    def covariates(self) -> CovariateEncoding | None:
        """Of the first fold: which covariates the model was trained with; None for none."""
        return self.encodings[0] if self.encodings else None

    @property
    def case_heads(self) -> list[CaseHead]:
        """Heads of the folds where they read whole cases, else none."""
        return [backend.head for backend in self.backends if isinstance(backend.head, CaseHead)]

    def predict(self, data: torch.Tensor, about: AboutCase = NOTHING) -> NetworkOutput:
        """Predict a preprocessed case; see :meth:`~nnunet_3dct.inference.ensemble.Ensemble.predict`.

        Args:
            data: ``(C, Z, Y, X)``.
            about: its spacing, and the covariates of the patient as :meth:`CovariateEncoding.accept` gives them.
        """
        return self._ensemble.predict(data, about)

    def describe(self) -> ProducedBy:
        """What produced a prediction."""
        runs = self.backends[0].describe()
        return {
            "trainer": self.trainer_name,
            "model": self.fingerprint,
            "head_weights": self.head_weights,
            "tta": self.options.tta,
            "mirror_axes": list(self.allowed_mirroring_axes or []) if self.options.tta != "none" else [],
            "step_size": self.options.step_size,
            "skip_empty": self.options.skip_empty,
            "backend": runs["backend"],
            "precision": runs["precision"],
            "device": runs["device"],
            "checkpoint": self.checkpoint_name,
            "folds": self.folds,
        }

    def _network(self, checkpoint: Checkpoint) -> MultiTaskUNet:
        unet = build_unet(self.plans_manager, self.configuration_manager, self.dataset_json)
        return load_saved_network(checkpoint, checkpoint.head_config, unet, checkpoint.source)

    def _start_networks(self, networks: Sequence[MultiTaskUNet], on_message: Message) -> None:
        options = self.options
        channels = determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json)
        patch_size = tuple(self.configuration_manager.patch_size)
        shape = (channels, *patch_size)
        self.backends: list[Backend] = [
            make_backend(network, shape, self.device, options.backend, options.precision, on_message)
            for network in networks
        ]
        windows = Windows(
            patch_size,
            options.step_size,
            mirrored_passes(self.allowed_mirroring_axes, options.tta),
            self.label_manager.num_segmentation_heads,
            self.target,
            empty_window_rule(self.plans_manager, self.configuration_manager) if options.skip_empty else None,
        )
        explainers: list[WindowExplainer] = []
        if options.explain:
            # in PyTorch; a runtime's own precision on the CPU does not concern it
            precision = self.backends[0].precision if self.device.type == "cuda" else "f32"
            explainers = [WindowExplainer(network, self.device, precision) for network in networks]
            explainers[0](torch.zeros(shape), 0)  # a head without gradient is told of now
        self._ensemble = Ensemble(
            self.backends,
            windows,
            sum_on_device=options.sum_on_device,
            explainers=explainers,
            on_message=on_message,
        )


def _described(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).is_file():
        raise CheckpointError(
            f"Model folder {folder}: expected {name}, found none. Check dataset, trainer, plans and configuration."
        )
    return read_json(folder / name, "Description of the model", CheckpointError, "Copy it again.")


def _checkpoints(paths: Sequence[Path]) -> list[Checkpoint]:
    checkpoints = [read_checkpoint(path, mmap=True) for path in paths]
    expected = _without_fit(checkpoints[0].head_config)
    for checkpoint in checkpoints:
        if _without_fit(checkpoint.head_config) != expected:
            raise CheckpointError(
                f"Checkpoint {checkpoint.source}: expected the same head as in {checkpoints[0].source} "
                f"({checkpoints[0].head_config}), found {checkpoint.head_config}. Folds that are averaged must share "
                "classes and head."
            )
    return checkpoints


def _encoding(head: HeadConfig) -> CovariateEncoding | None:
    """How a head takes covariates, None if it takes none."""
    stated = head.get("options", {}).get(COVARIATES)
    return None if stated is None else CovariateEncoding.from_dict(stated)


def _without_fit(head: HeadConfig) -> HeadConfig:
    """What the heads of all folds share: of covariates names and kinds, not the means of a fold's training cases."""
    encoding = _encoding(head)
    options = {name: value for name, value in head.get("options", {}).items() if name != KNOWN_CASES}
    if encoding is not None:
        options[COVARIATES] = encoding.kinds
    return {**head, "options": options}


def _fingerprint(checkpoints: Sequence[Checkpoint], head_weights: dict[str, str]) -> str:
    """Sixteen hexadecimal digits for the weights of all folds."""
    unets = [fingerprint(checkpoint.unet_weights) for checkpoint in checkpoints]
    return hashlib.sha256(json.dumps([unets, head_weights], sort_keys=True).encode()).hexdigest()[:16]


def _check_file_ending(ending: str) -> None:
    """Raise SettingsError where image files cannot hold a map."""
    if ending not in ENDINGS:
        raise SettingsError(
            f"explain: expected images in a format that holds fractions and a geometry ({', '.join(ENDINGS)}), found "
            f"{ending} in dataset.json. Leave it out."
        )


def _class_names(head: HeadConfig, folder: Path, on_message: Message) -> list[str] | None:
    try:
        return check_class_names(head.get("class_names"), head["num_classes"], f"Model {folder}")
    except ClassLabelsError as error:
        on_message(f"{error} The classes are numbered instead.")
        return None
