"""The memory attention head: tokens of several stages and learned memory tokens attend to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import register_head
from nnunet_3dct.networks.heads.base import ClassificationHead
from nnunet_3dct.networks.standardize import RunningStandardize


@register_head
class MemoryAttentionHead(ClassificationHead):
    """Two encoder and two decoder stages as tokens, learned memory tokens beside them, transformer blocks over all.

    Each stage is averaged to ``tokens`` cells, projected to ``width`` and given the positional embedding that all
    stages share. Pre-norm blocks (torch's ``TransformerEncoderLayer``) follow, then the mean of all tokens,
    LayerNorm and a linear layer. Of six stages the encoder's 2 and 4 and the decoder's 0 and 2 are read; in
    other networks those nearest to the same relative depth. Runs in fp32 under autocast: the products of
    unnormalised features do not fit fp16.

    Args:
        spec: features of the network.
        num_classes: number of classes.
        width: of a token; a multiple of ``attention_heads``.
        memory: number of learned tokens.
        depth: number of blocks.
        attention_heads: in each block.
        tokens: cells along Z, Y, X; in 2D the last two are used.
        dropout: in the blocks.
        standardize: whether each channel of each cell is standardised by running statistics; as published: not.
    """

    name = "memory_attention"

    def __init__(
        self,
        spec: FeatureSpec,
        num_classes: int,
        width: int = 320,
        memory: int = 200,
        depth: int = 4,
        attention_heads: int = 8,
        tokens: Sequence[int] = (5, 8, 5),
        dropout: float = 0.1,
        standardize: bool = False,
    ) -> None:
        super().__init__(
            spec,
            num_classes,
            width=width,
            memory=memory,
            depth=depth,
            attention_heads=attention_heads,
            tokens=list(tokens),
            dropout=dropout,
            standardize=standardize,
        )
        self.tokens = tuple(tokens)[-spec.dim :]
        self.encoder_stages = _relative(len(spec.encoder_channels), (2, 4), of=6)
        self.decoder_stages = _relative(len(spec.decoder_channels), (0, 2), of=5)
        channels = [spec.encoder_channels[i] for i in self.encoder_stages]
        channels += [spec.decoder_channels[i] for i in self.decoder_stages]
        self.projections = nn.ModuleList(nn.Linear(c, width) for c in channels)
        cells = math.prod(self.tokens)
        widths = [c * cells for c in channels]
        self.prepare = nn.ModuleList(
            RunningStandardize.of_averages(w, length=w**0.5) if standardize else nn.Identity() for w in widths
        )
        self.position = nn.Parameter(torch.randn(1, cells, width) * 0.02)
        self.memory = nn.Parameter(torch.randn(1, memory, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, attention_heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes)

    def summarize(self, features: UNetFeatures) -> tuple[Tensor, ...]:
        stages = [features.encoder[i] for i in self.encoder_stages]
        stages += [features.decoder[i] for i in self.decoder_stages]
        with torch.autocast(stages[0].device.type, enabled=False):
            return tuple(functional.interpolate(stage.float(), size=self.tokens, mode="area") for stage in stages)

    def classify(self, *summary: Tensor) -> Tensor:
        with torch.autocast(summary[0].device.type, enabled=False):
            sequence = [self.memory.expand(len(summary[0]), -1, -1)]
            for prepare, projection, stage in zip(self.prepare, self.projections, summary, strict=True):
                cells = prepare(stage.float().flatten(1)).view(*stage.shape[:2], -1)
                sequence.append(projection(cells.transpose(1, 2)) + self.position)
            x = torch.cat(sequence, dim=1)
            for block in self.blocks:
                x = block(x)
            return self.classifier(self.norm(x.mean(1)))


def _relative(stages: int, wanted: Sequence[int], of: int) -> list[int]:
    """Indices of ``stages`` at the relative depth of ``wanted`` among ``of``; each once."""
    return sorted({int(index / (of - 1) * (stages - 1) + 0.5) for index in wanted})
