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
SLAB_VOXELS = 2**24  # of all channels together, 64 MiB in float32


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
    axes = range(len(plan.old))
    lowest, highest = (data.amin(_kept(plan)), data.amax(_kept(plan)))
    step = max(1, min(BLOCK, SLAB_VOXELS // (len(data) * int(np.prod(plan.new[1:])))))
    for start in range(0, plan.new[0], step):
        rows = slice(start, min(start + step, plan.new[0]))
        bounds = [b.float() for b in (lowest, highest)]
        if plan.separate == 0:
            nearest = _nearest(plan.old[0], plan.new[0])[rows]
            slab, bounds = data[:, nearest].float(), [b[:, nearest] for b in bounds]
        else:
            slab = _interpolate_rows(data, plan, rows)
        for axis in axes[1:]:
            if axis != plan.separate:
                slab = _interpolate(slab, axis + 1, plan.new[axis], plan.order)
        if plan.old != plan.new:
            low, high = (_beside(b, slab, plan) for b in bounds)
            slab = slab.clamp(low, high)
        if plan.separate:
            slab = slab[
                (slice(None),) * (plan.separate + 1) + (_nearest(plan.old[plan.separate], plan.new[plan.separate]),)
            ]
        yield rows, slab


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
    """Resample one axis, a block of rows at a time."""
    old = x.shape[axis]
    if old == new:
        return x
    weights = axis_weights(old, new, order)
    shape = list(x.shape)
    shape[axis] = new
    out = x.new_empty(shape)
    for start in range(0, new, BLOCK):
        rows = slice(start, min(start + BLOCK, new))
        columns = _columns(weights[rows])
        part = x.narrow(axis, columns.start, columns.stop - columns.start)
        matrix = _on_device(weights[rows, columns], x.device)
        into = out.narrow(axis, rows.start, rows.stop - rows.start)
        if axis == x.ndim - 1:
            into.copy_(part @ matrix.T)
        else:
            into.copy_((matrix @ part.flatten(axis + 1)).reshape(into.shape))
    return out


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
