"""nnU-Net's spline resampling as one matrix for each axis, on any device.

Spline interpolation is linear and separable: what SciPy does to an axis is a matrix that depends only on the two
lengths and the order. It is made once, by letting SciPy resample the unit vectors, and a volume is then three matrix
products. Weights fade quickly away from the diagonal, so only a band of the matrix takes part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis
from scipy import ndimage
from torch import Tensor

BLOCK = 64  # rows of a matrix that share their columns
NEGLIGIBLE = 1e-9  # weights below take no part; the largest is near 1


class Plan(NamedTuple):
    """How one volume is resampled.

    Attributes:
        old, new: spatial shapes.
        orders: of the spline, for each axis.
        separate: the axis whose slices are resampled and clipped one by one, None where the volume is one.
    """

    old: tuple[int, ...]
    new: tuple[int, ...]
    orders: tuple[int, ...]
    separate: int | None


def plan_resampling(
    old: Sequence[int],
    new: Sequence[int],
    old_spacing: Sequence[float],
    new_spacing: Sequence[float],
    order: int,
    order_z: int = 0,
    force_separate_z: bool | None = None,
    **rule: float,
) -> Plan:
    """nnU-Net's rule: anisotropic volumes are resampled slice by slice, with ``order_z`` between the slices.

    Arguments are those of nnU-Net's ``resample_data_or_seg_to_shape``; ``rule`` is its
    ``separate_z_anisotropy_threshold``.
    """
    _, axis = determine_do_sep_z_and_axis(force_separate_z, old_spacing, new_spacing, **rule)
    orders = [order] * len(old)
    if axis is not None:
        orders[int(axis)] = order_z
    return Plan(tuple(map(int, old)), tuple(map(int, new)), tuple(orders), None if axis is None else int(axis))


def resample(data: Tensor, plan: Plan) -> Tensor:
    """Resample a volume as nnU-Net does, clipped to the range of the input.

    Args:
        data: ``(C, *plan.old)``, float32.
        plan: see :func:`plan_resampling`.

    Returns:
        ``(C, *plan.new)``, float32, on the device of ``data``; ``data`` itself when the shapes agree.
    """
    if plan.old == plan.new:
        return data
    out = torch.empty((len(data), *plan.new), dtype=torch.float32, device=data.device)
    for channel, result in zip(data, out, strict=True):
        for rows, part in _slabs(channel, plan, len(plan.old) * [None]):
            result[rows] = part
    return out


def resample_in_slabs(data: Tensor, plan: Plan, voxels: int) -> Iterator[tuple[slice, Tensor]]:
    """As :func:`resample`, some slices of the first axis at a time, so that the whole never lies in memory.

    Args:
        data: ``(C, *plan.old)``.
        plan: see :func:`plan_resampling`.
        voxels: about as many in one slab.

    Yields:
        Rows of the first axis, and their values ``(C, rows, ...)`` in float32.
    """
    step = max(1, voxels // max(1, len(data) * int(np.prod(plan.new[1:]))))
    step = min(step, BLOCK)
    bounds = [_range(channel, plan) for channel in data]
    for start in range(0, plan.new[0], step):
        rows = slice(start, min(start + step, plan.new[0]))
        yield rows, torch.stack([_rows(c, plan, rows, b) for c, b in zip(data, bounds, strict=True)])


