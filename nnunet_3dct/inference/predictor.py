"""nnU-Net's predictor with the class head: one pass over a case gives both outputs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_3dct.checkpoint import HEAD_STATE, check_unet_fits, head_config, read_checkpoint
from nnunet_3dct.errors import CheckpointError, SettingsError
from nnunet_3dct.inference.aggregation import CaseClass, EvidenceNetwork, average_folds, passes_per_window
from nnunet_3dct.memory import keep_freed_memory
from nnunet_3dct.networks.heads import ClassificationHead, build_head, head_names
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, feature_spec, uncompiled
from nnunet_3dct.target import TargetLabels


@dataclass(frozen=True)
class CasePrediction:
    """What the network says of one preprocessed case.

    Attributes:
        logits: segmentation logits ``(L, Z, Y, X)`` in the network's spacing, on the CPU.
        case_class: class probabilities and how they came about.
    """

    logits: torch.Tensor
    case_class: CaseClass


class MultiTaskPredictor(nnUNetPredictor):
    """Loads stage-2 checkpoints; everything about the segmentation is nnU-Net's own.

    Constructor arguments are those of ``nnUNetPredictor``. After
    :meth:`initialize_from_trained_model_folder`, ``head_config`` describes the head and ``target`` finds the
    voxels that carry the class.
    """

    head_config: dict[str, Any]
    target: TargetLabels

    def __init__(self, *, device: torch.device, perform_everything_on_device: bool = True, **options: Any) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        # off CUDA upstream announces that it turns this option off; it is off already
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(
                device=device,
                perform_everything_on_device=perform_everything_on_device and device.type == "cuda",
                **options,
            )

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Sequence[int | str] | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """Read plans, dataset and one checkpoint for each fold.

        Args:
            model_training_output_dir: folder with ``plans.json``, ``dataset.json`` and ``fold_X``.
            use_folds: folds to average; None for all that have the checkpoint.
            checkpoint_name: file inside each fold folder.

        Raises:
            CheckpointError: a file is missing or unreadable, holds no head, belongs to another network, or
                the folds' heads differ.
        """
        folder = Path(model_training_output_dir)
        for name in ("plans.json", "dataset.json"):
            if not (folder / name).is_file():
                raise CheckpointError(f"Model folder {folder}: expected {name}, found none. Check -d, -tr, -p and -c.")
        if use_folds is None:
            use_folds = self.auto_detect_available_folds(str(folder), checkpoint_name)
        if not use_folds:
            raise CheckpointError(f"Model folder {folder}: expected a fold with {checkpoint_name}, found none.")
        paths = [folder / f"fold_{fold}" / checkpoint_name for fold in use_folds]
        checkpoints = [read_checkpoint(path) for path in paths]
        configs = [head_config(c, str(path)) for c, path in zip(checkpoints, paths, strict=True)]
        for path, config in zip(paths, configs, strict=True):
            if config != configs[0]:
                raise CheckpointError(
                    f"Checkpoint {path}: expected the same head as in {paths[0]} ({configs[0]}), found "
                    f"{config}. Folds that are averaged must share classes and head."
                )

        dataset_json = load_json(str(folder / "dataset.json"))
        plans_manager = PlansManager(load_json(str(folder / "plans.json")))
        configuration = plans_manager.get_configuration(checkpoints[0]["init_args"]["configuration"])
        label_manager = plans_manager.get_label_manager(dataset_json)
        unet = build_unet(plans_manager, configuration, dataset_json)
        self.head_config = configs[0]
        head = build_saved_head(configs[0], unet, checkpoints[0].get("trainer_name", ""))
        for path, checkpoint in zip(paths, checkpoints, strict=True):
            check_unet_fits(unet.state_dict(), checkpoint["network_weights"], str(path))
            check_unet_fits(head.state_dict(), checkpoint[HEAD_STATE], f"{path} ({HEAD_STATE})")

        mirror_axes = checkpoints[0].get("inference_allowed_mirroring_axes")
        self.target = TargetLabels(label_manager, configs[0].get("target_labels"))
        network = EvidenceNetwork(
            MultiTaskUNet(unet, head),
            self.target,
            passes_per_window(mirror_axes if self.use_mirroring else None),
        )
        self.manual_initialization(
            network,
            plans_manager,
            configuration,
            [MultiTaskUNet.join_state_dicts(c["network_weights"], c[HEAD_STATE]) for c in checkpoints],
            dataset_json,
            checkpoints[0].get("trainer_name", ""),
            mirror_axes,
        )

    @torch.inference_mode()
    def predict_case(self, data: torch.Tensor) -> CasePrediction:
        """Predict one case.

        Args:
            data: preprocessed image ``(C, Z, Y, X)``.
        """
        network = self._evidence_network()
        classes: list[CaseClass] = []
        total: torch.Tensor | None = None
        for parameters in self.list_of_parameters:
            network.load_state_dict(parameters)
            network.evidence.clear()
            logits = self.predict_sliding_window_return_logits(data).to("cpu")
            total = logits if total is None else total.add_(logits)
            classes.append(network.evidence.result())
        assert total is not None, "initialize_from_trained_model_folder comes first"
        if len(classes) > 1:
            total /= len(classes)
        return CasePrediction(total, average_folds(classes))

    def _evidence_network(self) -> EvidenceNetwork:
        # nnU-Net's manual_initialization compiles the network when nnUNet_compile asks for it
        network = uncompiled(self.network)
        assert isinstance(network, EvidenceNetwork)
        return network


def build_saved_head(config: Mapping[str, Any], unet: nn.Module, trainer_name: str) -> ClassificationHead:
    """The head that a checkpoint describes.

    A head of the user's own is registered by the module that also holds its trainer, so that module is looked for
    where nnU-Net looks for trainers.

    Raises:
        CheckpointError: no module has registered it.
    """
    if config["name"] not in head_names():
        with contextlib.suppress(RuntimeError), contextlib.redirect_stdout(io.StringIO()):
            recursive_find_trainer_class_by_name(trainer_name)
    return build_head(config["name"], feature_spec(unet), config["num_classes"], **config.get("options", {}))


def build_unet(plans_manager: PlansManager, configuration: ConfigurationManager, dataset_json: dict) -> nn.Module:
    """nnU-Net's network for a configuration, without deep supervision."""
    return get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        determine_num_input_channels(plans_manager, configuration, dataset_json),
        plans_manager.get_label_manager(dataset_json).num_segmentation_heads,
        deep_supervision=False,
    )


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA, else MPS, else the CPU.

    Raises:
        SettingsError: the device asked for is not there.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in present.items() if there)
    if not present[name]:
        there = ", ".join(kind for kind, is_there in present.items() if is_there)
        raise SettingsError(f"-device {name}: expected a device of this machine, found only {there}.")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)
