"""Finds the encoder in a checkpoint of another training and fits it to the images of this one."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.checkpoint import Checkpoint
from nnunet_3dct.formats.pretrained import read_pretrained
from nnunet_3dct.networks.frozen_encoder import EncoderConfig, FrozenEncoder, describe_encoder
from nnunet_3dct.networks.matching import encoder_part, encoder_weights
from nnunet_3dct.upstream import ConfigurationManager, PlansManager


@dataclass(frozen=True)
class ForeignEncoder:
    """An encoder with its weights.

    Attributes:
        config: builds it.
        weights: for a :class:`~nnunet_3dct.networks.frozen_encoder.FrozenEncoder`.
        source: file that it comes from.
        dataset: that it was trained on; None where that is not noted.
        notes: lines for the user: what it is and what of it is left out.
    """

    config: EncoderConfig
    weights: dict[str, Tensor]
    source: str
    dataset: str | None
    notes: tuple[str, ...]

    def build(self) -> FrozenEncoder:
        """The encoder as a module."""
        encoder = FrozenEncoder(self.config)
        encoder.load_state_dict(self.weights, strict=False)  # layers have two names, of which one is enough
        return encoder


def open_encoder(
    path: Path | str, own: ConfigurationManager, channels: int, patch_size: Sequence[int]
) -> ForeignEncoder:
    """Read an encoder.

    Its architecture is that of the plans in the checkpoint; a bare ``state_dict`` holds none and has to fit the
    network of this model's plans. Where it was trained with another number of image channels, it sees as many as
    both have, the first ones; what its first layer holds for others is left out, as if they were 0.

    Args:
        path: whatever :func:`~nnunet_3dct.formats.pretrained.read_pretrained` reads.
        own: configuration of the model whose head reads the encoder.
        channels: of its images.
        patch_size: of its windows.

    Raises:
        CheckpointError: the file cannot be read, is of another dimension, or weights of the encoder are missing or of
            another shape.
    """
    checkpoint = read_pretrained(path, mmap=True)
    source = checkpoint.source
    described = _configuration(checkpoint)
    config = describe_encoder(described or own, channels, patch_size)
    dim = len(patch_size)
    if config["stages"] == 0:
        raise CheckpointError(
            f"Encoder {source}: expected one of a {dim}D network, as the segmentation is, found one of a "
            f"{'2D' if dim == 3 else '3D'} network. Give a checkpoint of a {'3d' if dim == 3 else '2d'} configuration."
        )
    found = encoder_part(checkpoint.unet_weights)
    notes = []
    first = next(iter(FrozenEncoder(config).state_dict()))  # the only layer that knows the channels of the image
    stem = found.get(first)
    if stem is not None and stem.ndim == dim + 2:
        config["channels"] = min(channels, int(stem.shape[1]))
        if stem.shape[1] != channels:
            notes.append(_of_channels(first, int(stem.shape[1]), channels))
        found[first] = stem[:, :channels]
    elif stem is not None:
        raise CheckpointError(
            f"Encoder {source}: expected weights of a {dim}D network, as the segmentation is, found {first} of shape "
            f"{tuple(stem.shape)}. Give a checkpoint of a {dim}D network."
        )
    encoder = FrozenEncoder(config)
    remedy = (
        "They do not belong to the plans that stand in the same file; give another checkpoint."
        if described is not None
        else "A state_dict without plans has to fit the network of this model's plans. Give nnU-Net's checkpoint or "
        "the folder of the trained model, which hold the plans."
    )
    weights = encoder_weights(encoder.state_dict(), found, source, remedy)
    of = f" trained on {checkpoint.dataset}" if checkpoint.dataset else ""
    widths = ", ".join(map(str, encoder.spec.encoder_channels))
    notes.insert(0, f"Features come from the encoder of {source}{of}: {config['stages']} stages of {widths} channels.")
    return ForeignEncoder(config, weights, source, checkpoint.dataset, tuple(notes))


def _configuration(checkpoint: Checkpoint) -> ConfigurationManager | None:
    """Of the plans in the checkpoint; None where it holds none."""
    plans = checkpoint.plans
    if plans is None:
        return None
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an old format, which nnU-Net brings up to date
            configuration = PlansManager(deepcopy(plans)).get_configuration(checkpoint.configuration)
            configuration.network_arch_class_name  # noqa: B018  missing in damaged plans
    except Exception as error:
        raise CheckpointError(
            f"Encoder {checkpoint.source}: expected plans of nnU-Net with the checkpoint's configuration, found some "
            f"that cannot be used ({type(error).__name__}: {error}). Give another checkpoint."
        ) from error
    return configuration


def _of_channels(layer: str, of_encoder: int, of_image: int) -> str:
    if of_encoder > of_image:
        without = f"channel {of_image}" if of_encoder == of_image + 1 else f"channels {of_image} to {of_encoder - 1}"
        return (
            f"It was trained on {of_encoder} image channels, here are {of_image}. Left out: {layer}, weights of "
            f"{without}."
        )
    return (
        f"It was trained on {of_encoder} image channel(s), here are {of_image}: it sees the first of them alone "
        f"({of_encoder})."
    )
