"""The network that a checkpoint describes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

from torch import nn

from nnunet_3dct.formats.checkpoint import HEAD_STATE, check_unet_fits
from nnunet_3dct.networks.heads import ClassificationHead, build_head, head_names
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, feature_spec
from nnunet_3dct.upstream import (
    ConfigurationManager,
    PlansManager,
    determine_num_input_channels,
    get_network_from_plans,
)


def load_saved_network(
    checkpoint: Mapping[str, Any], head_config: Mapping[str, Any], unet: nn.Module, source: str
) -> MultiTaskUNet:
    """U-Net and head with the weights of a checkpoint, in evaluation mode.

    Args:
        checkpoint: of stage 2.
        head_config: describes its head, see :func:`nnunet_3dct.formats.checkpoint.head_config`.
        unet: of the plans, see :func:`build_unet`; taken over.
        source: the checkpoint's name, for messages.

    Raises:
        CheckpointError: the weights are those of another network.
    """
    head = build_saved_head(head_config, unet, checkpoint.get("trainer_name", ""))
    weights, head_weights = checkpoint["network_weights"], checkpoint[HEAD_STATE]
    check_unet_fits(unet.state_dict(), weights, source)
    check_unet_fits(head.state_dict(), head_weights, f"{source} ({HEAD_STATE})")
    network = MultiTaskUNet(unet, head)
    network.load_state_dict(MultiTaskUNet.join_state_dicts(weights, head_weights))
    return network.eval()


def build_saved_head(config: Mapping[str, Any], unet: nn.Module, trainer_name: str) -> ClassificationHead:
    """The head that a checkpoint describes.

    A head of the user's own is registered by the module that also holds its trainer, so that module is looked for
    where nnU-Net looks for trainers.

    Raises:
        CheckpointError: no module has registered it.
    """
    if config["name"] not in head_names():
        from nnunet_3dct.upstream import recursive_find_trainer_class_by_name

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
