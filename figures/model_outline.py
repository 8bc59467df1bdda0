"""What the figure of the architecture says, read from nnU-Net's network and a head of the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from figures.head_outline import HeadOutline, Shape, outline_head
from nnunet_3dct.errors import SettingsError
from nnunet_3dct.networks.heads import build_head
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, feature_spec
from nnunet_3dct.training import variants as trainers

_BLOCKS = {ConvDropoutNormReLU: "conv", BasicBlockD: "residual", BottleneckD: "bottleneck"}


@dataclass(frozen=True)
class Stage:
    """One stage of encoder or decoder.

    Attributes:
        channels: of its output.
        size: voxels of its output, ``(Z, Y, X)`` or ``(Y, X)``.
        stride: by which the encoder stage goes down, or the decoder stage comes up.
        blocks: how many of which block, with their kernel.
        parameters: all of the stage; an encoder's first stage includes the stem, a decoder stage its upsampling.
    """

    channels: int
    size: Shape
    stride: Shape
    blocks: str
    parameters: int


@dataclass(frozen=True)
class ModelOutline:
    """Network and head, as the figure shows them.

    Attributes:
        plan: data set, plans and configuration.
        unet: class of nnU-Net's network.
        patch: channels and voxels of the input.
        encoder: stages, fine to coarse; the last is the bottleneck.
        decoder: stages, coarse to fine.
        segmentation: shapes of the segmentation logits, full resolution first; more than one with deep supervision.
        segmentation_kernel: of the layers that make them.
        segmentation_parameters: of these layers.
        parameters, unet_parameters: of everything, and without the head.
        head: the head.
    """

    plan: str
    unet: str
    patch: Shape
    encoder: tuple[Stage, ...]
    decoder: tuple[Stage, ...]
    segmentation: tuple[Shape, ...]
    segmentation_kernel: Shape
    segmentation_parameters: int
    parameters: int
    unet_parameters: int
    head: HeadOutline


def outline_model(
    plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any], head: str, num_classes: int
) -> ModelOutline:
    """Build the network of a plan with a head and follow one patch through both.

    The patch is one of PyTorch's fake tensors: shapes and gradients are true, nothing is computed.

    Args:
        plans: nnU-Net's ``plans.json``.
        configuration: such as ``3d_fullres``.
        dataset_json: nnU-Net's ``dataset.json``.
        head: name in the registry; its options are those of the trainer that uses it.
        num_classes: of the head.

    Raises:
        SettingsError: the plans have no such configuration.
        CheckpointError: no head has that name.
    """
    if configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise SettingsError(f"-c: expected one of {known}, found {configuration!r}")
    manager = PlansManager(dict(plans))
    planned = manager.get_configuration(configuration)
    inputs = determine_num_input_channels(manager, planned, dict(dataset_json))
    outputs = manager.get_label_manager(dict(dataset_json)).num_segmentation_heads
    unet = get_network_from_plans(
        planned.network_arch_class_name,
        planned.network_arch_init_kwargs,
        planned.network_arch_init_kwargs_req_import,
        inputs,
        outputs,
        deep_supervision=True,
    )
    network = MultiTaskUNet(unet, build_head(head, feature_spec(unet), num_classes, **_options(head)))
    with FakeTensorMode(allow_non_fake_inputs=True):
        segmentation, features = network.segment_with_features(torch.empty(1, inputs, *planned.patch_size))
        head_outline = outline_head(network.cls_head, features)
    parameters = _count(network)
    return ModelOutline(
        plan=f"{manager.dataset_name} · {manager.plans_name} · {configuration}",
        unet=type(unet).__name__,
        patch=(inputs, *planned.patch_size),
        encoder=_encoder(network.encoder, [tuple(x.shape) for x in features.encoder]),
        decoder=_decoder(network.decoder, [tuple(x.shape) for x in features.decoder]),
        segmentation=tuple(tuple(x.shape[1:]) for x in segmentation),
        segmentation_kernel=tuple(network.decoder.seg_layers[-1].kernel_size),
        segmentation_parameters=_count(network.decoder.seg_layers),
        parameters=parameters,
        unet_parameters=parameters - head_outline.parameters,
        head=head_outline,
    )


def _options(head: str) -> dict[str, Any]:
    """Options that the trainers give to a head; none for a head that no trainer of ours uses."""
    for name, trainer in vars(trainers).items():
        if name.startswith("nnUNetTrainer_") and getattr(trainer, "head_name", None) == head:
            return dict(trainer.head_options)
    return {}


def _encoder(encoder: Any, shapes: Sequence[Shape]) -> tuple[Stage, ...]:
    stem = _count(encoder.stem) if getattr(encoder, "stem", None) is not None else 0
    return tuple(
        Stage(shape[1], shape[2:], tuple(stride), _blocks(stage), _count(stage) + (0 if n else stem))
        for n, (stage, shape, stride) in enumerate(zip(encoder.stages, shapes, encoder.strides, strict=True))
    )


def _decoder(decoder: Any, shapes: Sequence[Shape]) -> tuple[Stage, ...]:
    return tuple(
        Stage(shape[1], shape[2:], tuple(up.stride), _blocks(stage), _count(up) + _count(stage))
        for up, stage, shape in zip(decoder.transpconvs, decoder.stages, shapes, strict=True)
    )


def _blocks(stage: nn.Module) -> str:
    """Such as ``2 × conv 3×3×3``; blocks inside blocks are not counted."""
    found = _outermost(stage)
    kinds = [name for block, name in _BLOCKS.items() if found and type(found[0]) is block]
    kernel = next(m.kernel_size for m in stage.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
    return f"{len(found)} × {kinds[0]} {'×'.join(map(str, kernel))}" if kinds else type(stage).__name__


def _outermost(module: nn.Module) -> list[nn.Module]:
    if type(module) in _BLOCKS:
        return [module]
    return [block for child in module.children() for block in _outermost(child)]


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
