"""How much of each voxel a window stands for, so that overlapping windows count no voxel twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def window_shares(
    windows: Sequence[tuple[slice | int, ...]], patch_size: Sequence[int], inside: Sequence[slice]
) -> list[Tensor]:
    """The share of every voxel in each window; over all windows the shares of a voxel add up to 1.

    A window counts most in its middle, by a triangle along each axis: near its border a network sees less. Voxels of
    the padding have no share.

    Args:
        windows: of a padded case, see :func:`~nnunet_3dct.inference.windows.window_layout`: all of them.
        patch_size: of the network.
        inside: where the image lies in the padded case, along each spatial axis.

    Returns:
        ``(1, *patch_size)`` for each window, float32.
    """
    axes = len(patch_size)
    starts = [[window[-axes + axis].start for window in windows] for axis in range(axes)]  # type: ignore[union-attr]
    tables = [
        _axis_shares(sorted(set(starts[axis])), size, inside[-axes + axis]) for axis, size in enumerate(patch_size)
    ]
    shares = []
    for at in zip(*starts, strict=True):
        share = torch.ones(1)
        for table, start in zip(tables, at, strict=True):
            share = share[..., None] * table[start]
        shares.append(share)
    return shares


def _axis_shares(starts: Sequence[int], size: int, inside: slice) -> dict[int, Tensor]:
    middle = torch.arange(size) - (size - 1) / 2
    triangle = 1 - middle.abs() / (size / 2 + 0.5)
    total = torch.zeros(max(starts) + size)
    for start in starts:
        total[start : start + size] += triangle
    seen = torch.zeros_like(total)
    seen[inside] = 1
    return {start: triangle / total[start : start + size] * seen[start : start + size] for start in starts}
