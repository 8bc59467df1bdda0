"""An encoder that was trained elsewhere and is not trained further."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import TypedDict

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.networks.features import FeatureSpec

if TYPE_CHECKING:  # nnU-Net itself is not needed where there is no such encoder
    from nnunet_3dct.upstream import ConfigurationManager

ARCHITECTURES = "dynamic_network_architectures."  # nothing else is imported because a checkpoint names it


class EncoderConfig(TypedDict):
    """Describes an encoder, so that it can be built again.

    Attributes:
        network: class of the U-Net whose encoder it is, as in nnU-Net's plans.
        options: constructor arguments of that class.
        imported: which of these are names to be imported.
        channels: of the image that it sees, the first ones.
        stages: that are used, from the finest on.
    """

    network: str
    options: dict[str, Any]
    imported: list[str]
    channels: int
    stages: int


class FrozenEncoder(nn.Module):
    """The encoder of one of nnU-Net's networks: always in evaluation mode, its parameters without gradient.

    Unlike a U-Net it takes images of any size: a stage whose input its stride does not divide gets zeros at the end,
    as its convolutions do anyway.

    Args:
        config: describes it.

    Attributes:
        spec: channels of its stages; there is no decoder.

    Raises:
        CheckpointError: no such network is known here, or it has no encoder with stages.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        encoder = _build(config)
        self.channels = config["channels"]
        self.stem = getattr(encoder, "stem", None)
        self.stages = encoder.stages[: config["stages"]]
        self.strides = [tuple(int(step) for step in stride) for stride in encoder.strides[: config["stages"]]]
        channels = tuple(int(channels) for channels in encoder.output_channels[: config["stages"]])
        self.spec = FeatureSpec(channels, (), 3 if issubclass(encoder.conv_op, nn.Conv3d) else 2)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features ``(B, C, ...)`` of every stage, fine to coarse, of an image ``(B, C, ...)``."""
        x = image[:, : self.channels]
        if self.stem is not None:
            x = self.stem(x)
        found = []
        for stage, stride in zip(self.stages, self.strides, strict=True):
            x = stage(_divisible(x, stride))
            found.append(x)
        return found


def _divisible(x: Tensor, stride: Sequence[int]) -> Tensor:
    missing = [-int(size) % step for size, step in zip(x.shape[2:], stride, strict=True)]
    if not any(missing):
        return x
    return functional.pad(x, [part for end in reversed(missing) for part in (0, end)])


def describe_encoder(configuration: ConfigurationManager, channels: int, patch_size: Sequence[int]) -> EncoderConfig:
    """The encoder of a configuration of nnU-Net's plans, for patches of another one.

    Args:
        configuration: of the plans that it was trained with.
        channels: of the image that it sees.
        patch_size: that it is shown. Stages in which a single voxel would be left are not used: they tell no places
            apart, and instance norms refuse them.

    Raises:
        CheckpointError: as :class:`FrozenEncoder`.
    """
    config = EncoderConfig(
        network=str(configuration.network_arch_class_name),
        options=dict(configuration.network_arch_init_kwargs),
        imported=list(configuration.network_arch_init_kwargs_req_import),
        channels=channels,
        stages=0,
    )
    strides = _build(config).strides
    sizes = list(patch_size)
    for number, stride in enumerate(strides if len(strides[0]) == len(sizes) else ()):
        sizes = [math.ceil(size / step) for size, step in zip(sizes, stride, strict=True)]
        if math.prod(sizes) > 1:
            config["stages"] = number + 1
    return config


def _build(config: EncoderConfig) -> Any:
    from nnunet_3dct.upstream import get_network_from_plans

    name = config["network"]
    if not name.startswith(ARCHITECTURES):
        raise CheckpointError(
            f"Encoder of {name}: expected a network of {ARCHITECTURES[:-1]}, found another one. Give a checkpoint of "
            "nnU-Net's PlainConvUNet or ResidualEncoderUNet."
        )
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names of former versions are looked for, with a note
            network = get_network_from_plans(
                name, config["options"], config["imported"], config["channels"], 1, False, deep_supervision=False
            )
    except Exception as error:  # whatever a constructor says of arguments that it does not know
        raise CheckpointError(
            f"Encoder of {name}: cannot be built ({type(error).__name__}: {error}). Its plans are of another version "
            "of nnU-Net or damaged; give another checkpoint."
        ) from error
    encoder = getattr(network, "encoder", None)
    if not all(hasattr(encoder, part) for part in ("stages", "output_channels", "strides", "conv_op")):
        raise CheckpointError(
            f"Encoder of {name}: expected a U-Net with an encoder of several stages, found none. Give a checkpoint of "
            "nnU-Net's PlainConvUNet or ResidualEncoderUNet."
        )
    return encoder
