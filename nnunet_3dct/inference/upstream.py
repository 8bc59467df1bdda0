"""nnU-Net's own predictor around a network that is in memory, for training and probing."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_3dct.memory import keep_freed_memory


def upstream_predictor(
    network: nn.Module,
    plans_manager: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict[str, Any],
    device: torch.device,
) -> nnUNetPredictor:
    """A predictor for preprocessed volumes, without mirroring and without messages."""
    if device.type == "cpu":
        keep_freed_memory()
    # off CUDA upstream announces that it turns an option off
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(
            use_mirroring=False, device=device, perform_everything_on_device=device.type == "cuda", allow_tqdm=False
        )
    predictor.manual_initialization(network, plans_manager, configuration, None, dataset_json, "", None)
    return predictor
