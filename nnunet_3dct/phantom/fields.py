"""Smooth fields in millimetres: the tools that the phantom is drawn with.

A field lives on a coarse lattice of cubic B-spline coefficients and is brought to the voxels with one
sparse matrix per axis, over the whole volume or inside a box. A signed distance (mm, negative inside)
written as coefficients is thereby smoothed a little, as no organ has a knife edge. Sparse products run in one
fixed order, so that the number of processes or of BLAS threads never shows in the result.

Axes are ``(Z, Y, X)``, positions are mm from the centre of the volume: x to the patient's left, y to the
back, z to the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, label
from scipy.sparse import csr_array

Box = tuple[slice, slice, slice]
Triple = tuple[float, float, float]

# Mean over all positions of the squared weights of a cubic B-spline, for three axes.
_WEIGHT_VARIANCE = (151 / 315) ** 3


@dataclass(frozen=True)
class Lattice:
    """Cubic B-spline coefficients under a voxel grid.

    Attributes:
        shape: Voxels along ``(Z, Y, X)``.
        spacing_mm: Voxel size along the same axes.
        knot_mm: Distance of the lattice points, the same along all axes.
    """

    shape: tuple[int, int, int]
    spacing_mm: Triple
    knot_mm: float

    @property
    def knots(self) -> tuple[int, ...]:
        """Lattice points along each axis, one before and two after the volume included."""
        return tuple(int((n - 1) * (s / self.knot_mm)) + 4 for n, s in zip(self.shape, self.spacing_mm, strict=True))

    @property
    def whole(self) -> Box:
        """The box of all voxels."""
        z, y, x = self.shape
        return slice(0, z), slice(0, y), slice(0, x)

    def positions(self) -> list[np.ndarray]:
        """Positions of the lattice points: three arrays that broadcast to :attr:`knots`."""
        axes = [
            ((np.arange(k) - 1) * self.knot_mm - (n - 1) * s / 2).astype(np.float32)
            for k, n, s in zip(self.knots, self.shape, self.spacing_mm, strict=True)
        ]
        return list(np.meshgrid(*axes, indexing="ij", sparse=True))

    def noise(self, rng: np.random.Generator, correlation_mm: float) -> np.ndarray:
        """Coefficients of a random field with unit variance and about this correlation length."""
        field = gaussian_filter(
            rng.standard_normal(self.knots, dtype=np.float32), correlation_mm / self.knot_mm, mode="wrap"
        )
        return field / field.std()

    def box_below(self, distance: np.ndarray, limit_mm: float) -> Box | None:
        """The smallest box of voxels that holds every position with ``distance`` below ``limit_mm``."""
        below = distance < limit_mm
        box = []
        for axis in range(3):
            hit = np.flatnonzero(below.any(axis=tuple(a for a in range(3) if a != axis)))
            if not hit.size:
                return None
            to_voxels = self.knot_mm / self.spacing_mm[axis]
            start = max(int((hit[0] - 2) * to_voxels), 0)
            stop = min(int(hit[-1] * to_voxels) + 2, self.shape[axis])
            if start >= stop:
                return None
            box.append(slice(start, stop))
        return box[0], box[1], box[2]

    def voxels(self, coefficients: np.ndarray, box: Box) -> np.ndarray:
        """The field at the voxels of ``box``, float32 ``(Z, Y, X)``."""
        pairs = [_weights(b.start, b.stop, s / self.knot_mm) for b, s in zip(box, self.spacing_mm, strict=True)]
        (wz, kz), (wy, ky), (wx, kx) = pairs
        c = coefficients[kz, ky, kx]
        nz, ny, nx = c.shape
        along_x = (wx @ c.reshape(nz * ny, nx).T).T.reshape(nz, ny, -1)
        along_y = (wy @ along_x.transpose(1, 0, 2).reshape(ny, -1)).reshape(wy.shape[0], nz, -1)
        return (wz @ along_y.transpose(1, 0, 2).reshape(nz, -1)).reshape(-1, wy.shape[0], wx.shape[0])


def _weights(start: int, stop: int, step: float) -> tuple[csr_array, slice]:
    """Spline weights of the voxels ``start:stop`` and the lattice points they belong to."""
    position = np.arange(start, stop) * step
    cell = np.floor(position).astype(np.int32)
    f = position - cell
    taps = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], axis=1) / 6
    columns = (cell - cell[0])[:, None] + np.arange(4, dtype=np.int32)
    width = int(cell[-1] - cell[0]) + 4
    rows = np.arange(0, 4 * len(cell) + 1, 4, dtype=np.int32)
    matrix = csr_array((taps.ravel().astype(np.float32), columns.ravel(), rows), shape=(len(cell), width))
    return matrix, slice(int(cell[0]), int(cell[0]) + width)


def random_field(rng: np.random.Generator, shape: Sequence[int], spacing_mm: Triple, knot_mm: float) -> np.ndarray:
    """A random field of zero mean and unit variance whose grains measure about two ``knot_mm``.

    Returns:
        float32 array of the given shape.
    """
    lattice = Lattice((shape[0], shape[1], shape[2]), spacing_mm, knot_mm)
    coefficients = rng.standard_normal(lattice.knots, dtype=np.float32)
    return lattice.voxels(coefficients, lattice.whole) / np.float32(np.sqrt(_WEIGHT_VARIANCE))


def occupancy(distance: np.ndarray, edge_mm: float) -> np.ndarray:
    """Share of each voxel that lies inside: a ramp of width ``edge_mm`` around distance zero."""
    return np.clip(0.5 - distance / np.float32(edge_mm), 0, 1)


def without_crumbs(distance: np.ndarray, share: float) -> np.ndarray:
    """Take out the pieces that hold less than ``share`` of all voxels inside."""
    inside = distance < 0
    pieces, _ = label(inside)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = inside.sum()
    return np.where(sizes[pieces] < share * sizes[0], np.float32(1e3), distance)


def blur_z(volume: np.ndarray, side: float) -> np.ndarray:
    """Slice profile: each slice takes the share ``side`` from either neighbour."""
    out = (1 - 2 * side) * volume
    out[1:] += side * volume[:-1]
    out[:-1] += side * volume[1:]
    out[0] += side * volume[0]
    out[-1] += side * volume[-1]
    return out


def curve(points: Sequence[Sequence[float]] | np.ndarray, n: int) -> np.ndarray:
    """``n`` points on a smooth curve through ``points`` (z, y, x and any further columns), float32."""
    control = np.asarray(points, dtype=float)
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(control[:, :3], axis=0), axis=1))]
    return PchipInterpolator(length, control)(np.linspace(0, length[-1], n)).astype(np.float32)


def tube(position: Sequence[np.ndarray], path: np.ndarray, height: float = 1.0) -> np.ndarray:
    """Signed distance to a tube.

    Args:
        position: z, y and x of the places asked for, broadcastable.
        path: ``(n, 4)``: z, y, x and radius (mm) along the middle line.
        height: Above 1 the cross-section is that much longer along z than its radius.
    """
    z, y, x = position
    best: np.ndarray | None = None
    for cz, cy, cx, radius in path:
        squared = ((z - cz) / np.float32(height)) ** 2 + (y - cy) ** 2 + (x - cx) ** 2
        distance = np.sqrt(squared) - radius
        best = distance if best is None else np.minimum(best, distance, out=best)
    assert best is not None, "a tube needs at least one point"
    return best


def ellipsoid(position: Sequence[np.ndarray], centre: Sequence[float], axes: Sequence[float]) -> np.ndarray:
    """Signed distance to an ellipsoid to first order; ``axes`` are its half lengths along z, y, x (mm)."""
    scaled = [(p - np.float32(c)) / np.float32(a) for p, c, a in zip(position, centre, axes, strict=True)]
    radius = np.sqrt(sum(s * s for s in scaled))
    slope = np.sqrt(sum((s / np.float32(a)) ** 2 for s, a in zip(scaled, axes, strict=True)))
    return radius * (radius - 1) / np.maximum(slope, np.float32(1e-6))
