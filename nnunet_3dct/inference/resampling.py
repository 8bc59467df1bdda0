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
from scipy import ndimage
from torch import Tensor

from nnunet_3dct.upstream import determine_do_sep_z_and_axis

BLOCK = 64  # rows of a matrix that share their columns
NEGLIGIBLE = 1e-9  # weights below take no part; the largest is near 1
SLAB_VOXELS = 2**24  # of all channels together, 64 MiB in float32
SLAB_VOXELS_ON_CPU = 2**20  # what the cache holds


class Plan(NamedTuple):
    """How one volume is resampled.

    Attributes:
        old, new: spatial shapes.
        order: of the spline.
        separate: the axis whose slices are resampled and clipped one by one and then taken by order 0; None where
            the volume is resampled as one.
    """

    old: tuple[int, ...]
    new: tuple[int, ...]
    order: int
    separate: int | None


def plan_resampling(
    old: Sequence[int],
    new: Sequence[int],
    old_spacing: Sequence[float],
    new_spacing: Sequence[float],
    order: int,
    force_separate_z: bool | None = None,
    **rule: float,
) -> Plan:
    """nnU-Net's rule: anisotropic volumes are resampled slice by slice.

    Arguments are those of nnU-Net's ``resample_data_or_seg_to_shape`` with ``order_z=0``; ``rule`` is its
    ``separate_z_anisotropy_threshold``.
    """
    _, axis = determine_do_sep_z_and_axis(force_separate_z, old_spacing, new_spacing, **rule)
    return Plan(tuple(map(int, old)), tuple(map(int, new)), order, None if axis is None else int(axis))


def resample(data: Tensor, plan: Plan) -> Tensor:
    """Resample a volume as nnU-Net does, clipped to the range of the input.

    Args:
        data: ``(C, *plan.old)``.
        plan: see :func:`plan_resampling`.

    Returns:
        ``(C, *plan.new)``, float32, on the device of ``data``.
    """
    out = torch.empty((len(data), *plan.new), dtype=torch.float32, device=data.device)
    for rows, slab in resample_in_slabs(data, plan):
        out[:, rows] = slab
    return out


def resample_in_slabs(data: Tensor, plan: Plan) -> Iterator[tuple[slice, Tensor]]:
    """As :func:`resample`, some slices of the first axis at a time, so that the whole need not lie in memory.

    Args:
        data: ``(C, *plan.old)``.
        plan: see :func:`plan_resampling`.

    Yields:
        Rows of the first axis, and their values ``(C, rows, ...)`` in float32.
    """
    lowest, highest = (extreme.float() for extreme in (data.amin(_kept(plan)), data.amax(_kept(plan))))
    voxels = len(data) * int(np.prod(plan.new[1:]))
    for start in range(0, plan.new[0], step := _rows(voxels, SLAB_VOXELS)):
        rows = slice(start, min(start + step, plan.new[0]))
        bounds = [lowest, highest]
        if plan.separate == 0:
            nearest = _nearest(plan.old[0], plan.new[0])[rows]
            slab, bounds = data[:, nearest].float(), [b[:, nearest] for b in bounds]
        else:
            slab = _interpolate_rows(data, plan, rows)
        few = _rows(voxels, SLAB_VOXELS_ON_CPU) if data.device.type == "cpu" else step
        for first in range(0, rows.stop - rows.start, few):
            part = slice(first, min(first + few, rows.stop - rows.start))
            parts_bounds = [b[:, part] for b in bounds] if plan.separate == 0 else bounds
            yield slice(start + part.start, start + part.stop), _within_rows(slab[:, part], plan, parts_bounds)


def _rows(voxels_a_row: int, most_voxels: int) -> int:
    return max(1, min(BLOCK, most_voxels // voxels_a_row))


def _within_rows(slab: Tensor, plan: Plan, bounds: Sequence[Tensor]) -> Tensor:
    """Resample all axes but the first, and clip."""
    for axis in range(1, len(plan.old)):
        if axis != plan.separate:
            slab = _interpolate(slab, axis + 1, plan.new[axis], plan.order)
    if plan.old != plan.new:
        low, high = (_beside(b, slab, plan) for b in bounds)
        slab = slab.clamp(low, high)
    if plan.separate:
        nearest = _nearest(plan.old[plan.separate], plan.new[plan.separate])
        slab = slab[(slice(None),) * (plan.separate + 1) + (nearest,)]
    return slab


def _kept(plan: Plan) -> tuple[int, ...]:
    """Axes of ``(C, ...)`` over which the range of values is taken."""
    return tuple(axis + 1 for axis in range(len(plan.old)) if axis != plan.separate)


def _beside(bounds: Tensor, slab: Tensor, plan: Plan) -> Tensor:
    """Bounds ``(C,)`` or ``(C, slices)`` shaped to broadcast against the slab."""
    shape = [1] * slab.ndim
    shape[0] = slab.shape[0]
    if plan.separate is not None:
        shape[plan.separate + 1] = slab.shape[plan.separate + 1]
    return bounds.reshape(shape)


def _interpolate_rows(data: Tensor, plan: Plan, rows: slice) -> Tensor:
    """Rows of the resampled first axis, the others as they are."""
    if plan.old[0] == plan.new[0]:
        return data[:, rows].float()
    weights = axis_weights(plan.old[0], plan.new[0], plan.order)[rows]
    columns = _columns(weights)
    flat = data[:, columns].float().flatten(2)
    product = torch.matmul(_on_device(weights[:, columns], data.device), flat)
    return product.reshape(len(data), rows.stop - rows.start, *data.shape[2:])


def _interpolate(x: Tensor, axis: int, new: int, order: int) -> Tensor:
    """Resample one axis, a block of rows at a time, each written where it belongs."""
    old = x.shape[axis]
    if old == new:
        return x
    out = x.new_empty((*x.shape[:axis], new, *x.shape[axis + 1 :]))
    last = axis == x.ndim - 1
    source = x.reshape(-1, old) if last else x.reshape(-1, old, int(np.prod(x.shape[axis + 1 :])))
    into = out.view(-1, new) if last else out.view(len(source), new, -1)
    for rows, columns, matrix in _blocks(old, new, order, x.device):
        if last:
            torch.mm(source[:, columns], matrix.T, out=into[:, rows])
        else:
            torch.bmm(matrix.expand(len(source), -1, -1), source[:, columns], out=into[:, rows])
    return out


@lru_cache(maxsize=16)
def _blocks(old: int, new: int, order: int, device: torch.device) -> list[tuple[slice, slice, Tensor]]:
    """Rows of an axis's matrix, the columns that matter to them, and that part of the matrix."""
    weights, blocks = axis_weights(old, new, order), []
    for start in range(0, new, BLOCK):
        rows = slice(start, min(start + BLOCK, new))
        columns = _columns(weights[rows])
        blocks.append((rows, columns, _on_device(weights[rows, columns], device)))
    return blocks


@lru_cache(maxsize=64)
def axis_weights(old: int, new: int, order: int) -> np.ndarray:
    """Weights ``(new, old)`` by which SciPy resamples an axis, in float64."""
    return ndimage.zoom(np.eye(old), (new / old, 1), order=order, mode="nearest", grid_mode=True)


@lru_cache(maxsize=64)
def _nearest(old: int, new: int) -> list[int]:
    """Slices that resampling of order 0 takes."""
    coordinates = old / new * (np.arange(new) + 0.5) - 0.5
    return ndimage.map_coordinates(np.arange(old), [coordinates], order=0, mode="nearest").tolist()


def _columns(weights: np.ndarray) -> slice:
    """From the first to the last column that matters to these rows."""
    used = np.flatnonzero(np.abs(weights).max(0) > NEGLIGIBLE)
    return slice(int(used[0]), int(used[-1]) + 1)


def _on_device(weights: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32)).to(device)
