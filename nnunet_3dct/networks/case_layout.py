"""What the features of a whole case are, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunet_3dct.networks.features import FeatureSpec
from nnunet_3dct.networks.pooling import pooled_width, stage_columns

WHOLE_IMAGE = "image"  # its intensities
IMAGE_CONTRAST = "contrast of the image"
IMAGE_SHARPNESS = "sharpness of the image"
IMAGE_BLOCKS = (WHOLE_IMAGE, IMAGE_CONTRAST, IMAGE_SHARPNESS)
MEASURED = ("intensity", "profile", "edge", "shape")
COVARIATES = "covariates"


@dataclass(frozen=True)
class CaseLayout:
    """Names of the columns and the blocks that they form.

    Attributes:
        names: of every column.
        blocks: name of a block -> its columns. ``encoder 0`` is mean and spread of that stage under the target,
            ``encoder 0 of the patch`` its mean over the whole image.
        network_width: columns that come from the network; those that are measured follow, then the covariates.
    """

    names: tuple[str, ...]
    blocks: Mapping[str, tuple[int, ...]]
    network_width: int

    @classmethod
    def of(cls, spec: FeatureSpec, measured: Mapping[str, Sequence[str]], covariates: Sequence[str] = ()) -> CaseLayout:
        """The layout for a network.

        Args:
            spec: features of the network.
            measured: block -> names, see :func:`~nnunet_3dct.inference.measurements.measurement_names`.
            covariates: names of the columns of covariates.
        """
        names: list[str] = []
        blocks: dict[str, tuple[int, ...]] = {}
        widths = (*spec.encoder_channels, *spec.decoder_channels)
        for number, (columns, width) in enumerate(zip(stage_columns(spec), widths, strict=True)):
            depth = len(spec.encoder_channels)
            stage = f"encoder {number}" if number < depth else f"decoder {number - depth}"
            for what in ("mean", "spread", "mean over the image"):
                names += [f"{stage}: {what} of channel {channel}" for channel in range(width)]
            start = columns.start
            blocks[stage] = tuple(range(start, start + 2 * width))
            blocks[f"{stage} of the image"] = tuple(range(start + 2 * width, start + 3 * width))
        blocks["size"] = (len(names),)
        names.append("size of the target as the network sees it")
        for block, columns_of_block in {**measured, COVARIATES: covariates}.items():
            if columns_of_block:
                blocks[block] = tuple(range(len(names), len(names) + len(columns_of_block)))
                names += columns_of_block
        return cls(tuple(names), blocks, pooled_width(spec))

    def columns(self, blocks: Sequence[str]) -> list[int]:
        """Columns of several blocks, in order."""
        return sorted(column for block in blocks for column in self.blocks[block])
