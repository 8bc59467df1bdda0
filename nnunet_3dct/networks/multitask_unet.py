"""U-Net with a classification head: one encoder-decoder pass gives both outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads.base import ClassificationHead

HEAD_PREFIX = "cls_head."


class MultiTaskUNet(nn.Module):
    """Wraps an nnU-Net network and adds a head.

    Called as nnU-Net calls its networks, it returns what nnU-Net expects. Encoder and decoder keep
    upstream's parameter names, so ``unet_state_dict`` is a stock nnU-Net state.

    Args:
        unet: ``PlainConvUNet``, ``ResidualEncoderUNet`` or any network with an ``encoder`` that returns
            skips and a ``decoder`` with ``transpconvs``, ``stages`` and ``seg_layers``.
        cls_head: built for this network's :class:`FeatureSpec`, see :func:`feature_spec`.
    """

    encoder: Any
    decoder: Any

    def __init__(self, unet: nn.Module, cls_head: ClassificationHead) -> None:
        super().__init__()
        self.encoder = unet.encoder
        self.decoder = unet.decoder
        self.cls_head = cls_head

    def forward(self, x: Tensor, return_cls: bool = False):
        """Segment, and classify on request.

        Args:
            x: ``(B, C, Z, Y, X)`` or ``(B, C, Y, X)``.
            return_cls: also return the class logits of the same pass.

        Returns:
            Segmentation logits ``(B, L, Z, Y, X)``, or with deep supervision the list of them from full
            to coarse resolution. With ``return_cls`` a tuple of that and class logits ``(B, n)``.
        """
        if not return_cls:
            return self.decoder(self.encoder(x))
        segmentation, features = self.segment_with_features(x)
        return segmentation, self.cls_head(features)

    def segment_with_features(self, x: Tensor) -> tuple[Any, UNetFeatures]:
        """Segmentation as ``forward`` gives it, and the features of the same pass."""
        skips = self.encoder(x)
        segmentation, features = self._decode(skips)
        full_resolution = segmentation[0] if isinstance(segmentation, list) else segmentation
        return segmentation, UNetFeatures(skips, features, full_resolution, x)

    def _decode(self, skips: list[Tensor]) -> tuple[Tensor | list[Tensor], list[Tensor]]:
        """The decoder's own layers in their order; keeps every stage's features, coarse to fine."""
        decoder = self.decoder
        x, features = skips[-1], []
        layers = zip(decoder.transpconvs, decoder.stages, reversed(skips[:-1]), strict=True)
        for upsample, stage, skip in layers:
            x = stage(torch.cat((upsample(x), skip), dim=1))
            features.append(x)
        if not decoder.deep_supervision:
            return decoder.seg_layers[-1](x), features
        outputs = [layer(f) for layer, f in zip(decoder.seg_layers, features, strict=True)]
        return outputs[::-1], features

    def freeze(self, parts: Collection[str]) -> None:
        """Train everything but these parts of the U-Net (``"encoder"``, ``"decoder"``)."""
        for name, parameter in self.named_parameters():
            # each once, by its first name: the decoder also holds the encoder, whose own name comes first
            parameter.requires_grad_(name.partition(".")[0] not in parts)

    def unet_state_dict(self) -> dict[str, Tensor]:
        """The U-Net's weights alone, under upstream's names."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(HEAD_PREFIX)}

    @staticmethod
    def join_state_dicts(unet: Mapping[str, Tensor], cls_head: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of the whole network from the two parts of a checkpoint."""
        return {**unet, **{HEAD_PREFIX + k: v for k, v in cls_head.items()}}


def uncompiled(network: nn.Module) -> nn.Module:
    """The network that ``torch.compile`` wraps, or the network itself."""
    return getattr(network, "_orig_mod", network)


def feature_spec(unet: Any) -> FeatureSpec:
    """Read channels and dimension from the network, so that heads fit any plan."""
    encoder, decoder = unet.encoder, unet.decoder
    return FeatureSpec(
        encoder_channels=tuple(int(c) for c in encoder.output_channels),
        decoder_channels=tuple(int(layer.in_channels) for layer in decoder.seg_layers),
        dim=3 if issubclass(encoder.conv_op, nn.Conv3d) else 2,
    )
