"""A small picture of an image's content that survives resampling, another order of storage and other intensities.

The image is turned to the patient's axes, averaged over a grid of equal boxes over its field of view, and freed of what
patients have in common: everywhere the mean of the surroundings is taken away, and what is left is divided by their
spread, so that the border between body and air counts no more than a faint vessel. Offset and scale go with it.

Measured with copies of other voxel size (factors 0.6 to 2, nearest neighbour among them) or cut-off intensities: copies
of lung nodules of 51 voxels a side correlate by 0.90 and more, of hippocampi of 35x50x36 voxels by 0.74; of stacks of
8 slices, where few voxels are left, by 0.48. Different images correlate by 0.44, 0.61 (all hippocampi look alike) and
0.44 at most, over all ways to turn them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

GRID = 20  # boxes along each axis
SURROUNDINGS = 5  # boxes along each axis
SAMPLES = 50_000  # voxels that tell tissue from air
FAINTEST = 0.1  # spread of the surroundings that is still taken for content, as a share of the image's


def signature(image: np.ndarray, direction: Sequence[float]) -> np.ndarray:
    """Signature ``(GRID, GRID, GRID)`` of an image, float32, with the mean 0 and the length 1 (0 if it is constant).

    Axes run towards the patient's head, back and left, as far as the direction says.

    Args:
        image: ``(Z, Y, X)``.
        direction: nine cosines row by row, as in :class:`~nnunet_3dct.formats.geometry.Geometry`.
    """
    boxes = tissue(image)
    for axis in np.argsort(image.shape)[::-1]:  # the longest first, which leaves least to do
        boxes = np.moveaxis(np.tensordot(averaging(image.shape[axis]), boxes, axes=(1, axis)), 0, axis)
    boxes = _to_patient_axes(boxes, direction)
    if np.ptp(boxes) <= 1e-5 * np.abs(boxes).max():
        return np.zeros_like(boxes)  # constant but for rounding
    boxes = boxes - boxes.mean(dtype=np.float64)
    faintest = FAINTEST * float(boxes.std())
    boxes = boxes - ndimage.uniform_filter(boxes, SURROUNDINGS, mode="nearest")
    spread = np.sqrt(np.clip(ndimage.uniform_filter(boxes**2, SURROUNDINGS, mode="nearest"), 0, None))
    boxes = np.divide(boxes, spread + faintest, out=np.zeros_like(boxes), where=spread > 0)
    boxes = boxes - boxes.mean()
    length = float(np.linalg.norm(boxes))
    return (boxes / length if length > 0 else boxes).astype(np.float32)


def tissue(image: np.ndarray) -> np.ndarray:
    """Intensities, float32, cut off below and above the brighter half of the image's two kinds of voxels.

    In CT these are air or fat, and soft tissue with what is brighter: the outline of the body, which patients share,
    then counts little against what lies in it.
    """
    sample = image.reshape(-1)[:: max(1, image.size // SAMPLES) | 1].astype(np.float64)
    brighter = sample[sample > threshold_otsu(sample)] if sample.min() < sample.max() else sample[:0]
    if not brighter.size:
        return image.astype(np.float32)
    low, high = np.percentile(brighter, (5, 99))
    return np.clip(image.astype(np.float32), low, max(high, low + 1e-6))


def averaging(size: int) -> np.ndarray:
    """Matrix ``(GRID, size)`` that averages voxels over equal boxes, a voxel on a border by its part inside."""
    edges = np.linspace(0, size, GRID + 1)
    voxels = np.arange(size)
    inside = np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels)
    return (np.clip(inside, 0, None) * GRID / size).astype(np.float32)


def _to_patient_axes(boxes: np.ndarray, direction: Sequence[float]) -> np.ndarray:
    cosines = np.reshape(direction, (3, 3))
    order: list[int] = []
    for row in range(3):  # the patient's x, y, z
        left = [axis for axis in range(3) if axis not in order]
        order.append(max(left, key=lambda axis: abs(float(cosines[row, axis]))))
    turned = boxes.transpose(2, 1, 0).transpose(order)
    flips = tuple(slice(None, None, -1 if cosines[row, order[row]] < 0 else 1) for row in range(3))
    return turned[flips].transpose(2, 1, 0)
