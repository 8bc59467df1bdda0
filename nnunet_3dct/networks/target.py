"""The target: voxel labels that carry the class of a case, for instance the lesion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nnunet_3dct.errors import SettingsError


class TargetLabels:
    """Finds the target in training patches and in predicted logits.

    Args:
        label_manager: nnU-Net's ``LabelManager``.
        wanted: label ids or names of ``dataset.json``; None for all foreground.

    Attributes:
        labels: voxel values of the target.
        channels: channels of the segmentation logits that make up the target.
        has_regions: whether the channels are overlapping regions.

    Raises:
        SettingsError: a label does not exist, is background or ignore, or (region-based datasets) no region
            lies inside the wanted labels.
    """

    def __init__(self, label_manager: Any, wanted: Sequence[int | str] | None = None) -> None:
        self.has_regions = bool(label_manager.has_regions)
        foreground = [int(label) for label in label_manager.all_labels if int(label) != 0]
        self.labels = tuple(foreground if wanted is None else _resolve(wanted, label_manager, foreground))
        self.channels = list(self.labels)
        if self.has_regions:
            self.channels = [
                i
                for i, region in enumerate(label_manager.foreground_regions)
                if set(region if isinstance(region, tuple | list) else [region]) <= set(self.labels)
            ]
            if not self.channels:
                raise SettingsError(
                    "NNUNETV2_MT_TARGET_LABELS: expected labels that make up a region of dataset.json, "
                    f"found {list(self.labels)}; regions are {label_manager.foreground_regions}."
                )

    def in_patch(self, target: Tensor) -> Tensor:
        """Whether each sample shows any target voxel.

        Args:
            target: full-resolution training target ``(B, 1, ...)``, or one-hot regions ``(B, R, ...)``.

        Returns:
            bool ``(B,)``.
        """
        if self.has_regions:
            return (pick_channels(target, self.channels) > 0).flatten(1).any(1)
        return self._is_target(target).flatten(1).any(1)

    def voxels(self, logits: Tensor) -> Tensor:
        """Number of voxels which the network takes for target.

        Args:
            logits: segmentation logits ``(B, L, ...)``.

        Returns:
            float ``(B,)``.
        """
        return self.mask(logits).flatten(1).sum(1).float()

    def mask(self, logits: Tensor) -> Tensor:
        """Voxels which the network takes for target.

        Args:
            logits: segmentation logits ``(B, L, ...)``.

        Returns:
            bool ``(B, ...)``.
        """
        if self.has_regions:
            return (pick_channels(logits, self.channels) > 0).any(1)
        return self._is_target(argmax_labels(logits.movedim(1, 0)))

    def _is_target(self, voxels: Tensor) -> Tensor:
        """Whether each voxel value is one of the target's; without a tensor of labels, for which CUDA would wait."""
        mask = voxels == self.labels[0]
        for label in self.labels[1:]:
            mask |= voxels == label
        return mask


def _resolve(wanted: Sequence[int | str], label_manager: Any, foreground: list[int]) -> list[int]:
    names = {
        name: [int(v) for v in (value if isinstance(value, tuple | list) else [value])]
        for name, value in label_manager.label_dict.items()
    }
    resolved: set[int] = set()
    for label in wanted:
        values = names.get(label, []) if isinstance(label, str) else [label]
        if not values or not set(values) <= set(foreground):
            raise SettingsError(
                f"NNUNETV2_MT_TARGET_LABELS: expected foreground labels of dataset.json "
                f"({', '.join(f'{n}={v}' for n, v in label_manager.label_dict.items())}), found {label!r}."
            )
        resolved.update(values)
    return sorted(resolved)


def pick_channels(x: Tensor, channels: Sequence[int]) -> Tensor:
    """``x[:, channels]`` of ``(B, C, ...)`` without a tensor of indices, for which CUDA would wait."""
    return torch.cat([x[:, channel : channel + 1] for channel in channels], dim=1)


def argmax_labels(logits: Tensor) -> Tensor:
    """Index of the largest channel, the first one of equals.

    ``torch.argmax`` over a leading axis takes a hundred times as long on the CPU.

    Args:
        logits: ``(L, ...)``, finite.

    Returns:
        ``(...)``, uint8, or int16 from 256 channels on.
    """
    kind = torch.uint8 if len(logits) <= 256 else torch.int16
    largest = logits[0]
    labels = torch.zeros(largest.shape, dtype=kind, device=logits.device)
    for channel in range(1, len(logits)):
        larger = (logits[channel] > largest).to(kind)
        labels = torch.maximum(labels, larger.mul_(channel))
        largest = torch.maximum(largest, logits[channel])
    return labels
