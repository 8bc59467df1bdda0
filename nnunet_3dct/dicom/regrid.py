"""Slices that do not form a grid, brought onto one: tilted gantry and uneven spacing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from nnunet_3dct.dicom.stack import Stack


@dataclass(frozen=True)
class Grid:
    """Voxels with their grid in SimpleITK's order.

    Attributes:
        array: (Z, Y, X).
        origin: in mm.
        spacing: (x, y, z) in mm.
        repairs: what was done, one text each.
    """

    array: np.ndarray
    origin: np.ndarray
    spacing: tuple[float, float, float]
    repairs: list[str]


def on_a_grid(array: np.ndarray, stack: Stack) -> Grid:
    """Slices (Z, Y, X) of a stack as voxels of a grid with right angles; changed only where they are not.

    A tilted gantry shifts slices in their plane: each is moved back by linear interpolation within its plane, and the
    image grows so that nothing is cut off. Unevenly spaced slices are interpolated linearly between their true
    positions; the first and the last one stay what they are.
    """
    origin, (width, height), step = stack.origin, stack.pixel, stack.step
    repairs = []
    if stack.is_shifted:
        array, moved = _straightened(array, stack)
        origin = origin + stack.axes[:, :2] @ moved
        repairs.append(_shift_text(stack))
    if not stack.is_even:
        count = len(array)
        step = _even_step(stack.distances)
        array = _interpolated(array, stack.distances, step)
        gaps = np.diff(stack.distances)
        repairs.append(
            f"uneven slices, {gaps.min():.4g} to {gaps.max():.4g} mm apart: {count} resampled to {len(array)} every "
            f"{step:.4g} mm"
        )
    return Grid(array, origin, (width, height, step), repairs)


def _straightened(array: np.ndarray, stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Slices beside each other in the patient; and by how many mm (row, column) the first pixel moved."""
    pixels = stack.shifts / np.asarray(stack.pixel)  # (n, 2): along a row, along a column
    first = np.floor(pixels.min(axis=0) + 1e-6)
    last = np.ceil(pixels.max(axis=0) - 1e-6)
    more_x, more_y = (last - first).astype(int).tolist()
    fill = _outside(array)
    wide = np.full((len(array), array.shape[1] + more_y, array.shape[2] + more_x), fill, array.dtype)
    for number, values in enumerate(array):
        plane = np.full(wide.shape[1:], fill, np.float32)
        plane[: values.shape[0], : values.shape[1]] = values
        right, down = pixels[number] - first
        moved = scipy.ndimage.shift(plane, (down, right), order=1, mode="constant", cval=fill, prefilter=False)
        wide[number] = _as(moved, array.dtype)
    return wide, first * np.asarray(stack.pixel)


def _outside(array: np.ndarray) -> float:
    """Value of air, or what comes nearest to it: the lowest value of the image."""
    return float(array.min())


def _even_step(distances: np.ndarray) -> float:
    """Spacing of a grid from the first to the last slice, as fine as the finest usual gap."""
    gaps = np.diff(distances)
    finest = max(float(gaps.min()), float(np.median(gaps)) / 3)
    length = float(distances[-1])
    return length / max(math.ceil(length / finest - 0.01), 1)


def _interpolated(array: np.ndarray, distances: np.ndarray, step: float) -> np.ndarray:
    wanted = np.arange(round(float(distances[-1]) / step) + 1) * step
    after = np.clip(np.searchsorted(distances, wanted), 1, len(distances) - 1)
    weights = np.clip((wanted - distances[after - 1]) / (distances[after] - distances[after - 1]), 0, 1)
    result = np.empty((len(wanted), *array.shape[1:]), array.dtype)
    for number, (index, weight) in enumerate(zip(after, weights, strict=True)):
        mixed = (1 - weight) * array[index - 1].astype(np.float32) + weight * array[index].astype(np.float32)
        result[number] = _as(mixed, array.dtype)
    return result


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.round(values).astype(dtype) if np.issubdtype(dtype, np.integer) else values.astype(dtype)


def _shift_text(stack: Stack) -> str:
    tilt = stack.tilt
    if tilt is None:
        return f"slices lie up to {np.abs(stack.shifts).max():.3g} mm beside each other: moved in their plane"
    return f"gantry tilted by {tilt:.3g} degrees: slices moved in their plane"
