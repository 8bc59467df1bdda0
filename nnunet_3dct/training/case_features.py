"""Features of preprocessed cases for a case head, through the backend of prediction, kept by weights and case."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_3dct.errors import CheckpointError, OutputError, SettingsError
from nnunet_3dct.formats.atomic import write_file
from nnunet_3dct.formats.checkpoint import Checkpoint, check_unet_fits, fingerprint
from nnunet_3dct.formats.dataset_json import num_channels
from nnunet_3dct.inference.backends import make_backend
from nnunet_3dct.inference.measurements import measurement_names
from nnunet_3dct.inference.preprocessing import network_spacing
from nnunet_3dct.inference.windows import AboutCase, Windows
from nnunet_3dct.networks.build import build_unet
from nnunet_3dct.networks.foreign_encoder import ForeignEncoder
from nnunet_3dct.networks.heads.case import CaseHead
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, feature_spec
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.runtime import Message, cache_folder, prediction_switches
from nnunet_3dct.upstream import PlansManager, determine_num_input_channels, infer_dataset_class

FORMAT = 3  # of what is kept; raise it when a feature changes
STEP_SIZE = 0.5


class CaseFeatures:
    """A trained segmentation network that gives the features of whole cases.

    Args:
        checkpoint: of any training with nnU-Net's own network of the plans.
        plans, dataset_json: of the model.
        target_labels: voxel labels that carry the class; None for the checkpoint's own, else all foreground.
        num_classes: of the head.
        device: where the network runs.
        encoder: of another training, whose features take the place of the network's own; None for none.
        backend, precision: see :func:`~nnunet_3dct.inference.backends.make_backend`.
        on_message: told of what takes long.

    Attributes:
        head: an unfitted case head of the network.
        target: finds the target.
        network: the U-Net with that head.

    Raises:
        CheckpointError: the weights are those of another network.
        SettingsError: a cascade, or labels that do not exist.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        plans: dict[str, Any],
        dataset_json: dict[str, Any],
        target_labels: tuple[int | str, ...] | None,
        num_classes: int,
        device: torch.device,
        *,
        encoder: ForeignEncoder | None = None,
        backend: str = "auto",
        precision: str = "auto",
        on_message: Message | None = None,
    ) -> None:
        self._plans = PlansManager(plans)
        self._configuration = self._plans.get_configuration(checkpoint.configuration)
        if self._configuration.previous_stage_name is not None:
            raise SettingsError(f"{checkpoint.source}: expected a network that stands alone, found one of a cascade.")
        label_manager = self._plans.get_label_manager(dataset_json)
        saved = checkpoint.head_config["target_labels"] if checkpoint.has_head else None
        self.target = TargetLabels(label_manager, target_labels or saved)
        unet = build_unet(self._plans, self._configuration, dataset_json)
        check_unet_fits(unet.state_dict(), checkpoint.unet_weights, checkpoint.source)
        unet.load_state_dict(checkpoint.unet_weights)
        channels = num_channels(dataset_json)
        self.head = CaseHead(
            feature_spec(unet),
            num_classes,
            target_channels=self.target.channels,
            regions=self.target.has_regions,
            channels=channels,
            measured=measurement_names(channels),
            encoder=None if encoder is None else encoder.config,
        )
        if encoder is not None:
            self.head.encoder = encoder.build()
        self.network = MultiTaskUNet(unet, self.head).eval()
        patch = tuple(self._configuration.patch_size)
        inputs = determine_num_input_channels(self._plans, self._configuration, dataset_json)
        self._backend = make_backend(self.network, (inputs, *patch), device, backend, precision, on_message)
        self._windows = Windows(patch, STEP_SIZE, [()], label_manager.num_segmentation_heads, self.target)
        self._kept = cache_folder() / "features" / self._key(checkpoint)

    def of_cases(self, preprocessed: Path, cases: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Features ``(width,)`` of preprocessed cases, those that are kept from the disk.

        Args:
            preprocessed: folder of the dataset in ``nnUNet_preprocessed``.
            cases: identifiers.

        Raises:
            CheckpointError: a case was not preprocessed for this configuration.
        """
        folder = preprocessed / self._configuration.data_identifier
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: expected the preprocessed cases, found no folder. Preprocess them again.")
        dataset = infer_dataset_class(str(folder))(str(folder))
        for case in cases:
            files = sorted(folder.glob(f"{case}.*"))
            if not files:
                raise CheckpointError(f"{folder}: expected the preprocessed case {case}, found none. Preprocess again.")
            stamp = hashlib.sha256(repr([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]).encode())
            kept = self._kept / f"{case}-{stamp.hexdigest()[:12]}.npy"
            row = _read(kept, len(self.head.layout.names))
            if row is None:
                row = self._columns(dataset, case)
                _keep(row, kept)
            yield case, row

    def _columns(self, dataset: Any, case: str) -> np.ndarray:
        data, _, _, properties = dataset.load_case(case)
        spacing = network_spacing(properties, self._plans, self._configuration)
        return self.of_image(torch.from_numpy(np.asarray(data[:])), spacing)

    def of_image(self, image: torch.Tensor, spacing: tuple[float, ...]) -> np.ndarray:
        """Features ``(width,)`` of a preprocessed image ``(C, Z, Y, X)`` with a spacing in mm."""
        about = AboutCase(spacing)
        with torch.inference_mode(), prediction_switches(self._backend.device, self._backend.precision):
            _, found = self._windows.predict(self._backend, image, 1, self._backend.device, about)
        return found.columns[0].numpy()

    def _key(self, checkpoint: Checkpoint) -> str:
        settings = {
            "format": FORMAT,
            "weights": fingerprint(checkpoint.unet_weights),
            "head": self.head.options,
            "patch": list(self._configuration.patch_size),
            "data": self._configuration.data_identifier,
            "spacing": list(self._configuration.spacing),
            "backend": self._backend.describe(),
        }
        if self.head.encoder is not None:
            settings["encoder"] = fingerprint(self.head.encoder.state_dict())
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:24]


def _read(path: Path, width: int) -> np.ndarray | None:
    """What is kept of a case; None if nothing of use is."""
    try:
        row = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return row if row.shape == (width,) else None


def _keep(row: np.ndarray, path: Path) -> None:
    """Keep the features of a case; a folder that cannot be written is done without."""
    stream = io.BytesIO()
    np.save(stream, row)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, lambda file: file.write(stream.getvalue()))
    except (OSError, OutputError):
        return
