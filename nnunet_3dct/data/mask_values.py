"""Values that a mask holds as floating point, and the labels next to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_3dct.errors import ImageError, listing
from nnunet_3dct.formats.label_values import LABEL_TOLERANCE
from nnunet_3dct.formats.nifti_content import NiftiContent


@dataclass(frozen=True)
class StoredLabels:
    """Distinct stored values of a mask that is floating point or scaled.

    Attributes:
        stored: the distinct values.
        values: what they are after rescaling.
        labels: the whole number next to each.
        counts: voxels of each.
    """

    stored: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    counts: np.ndarray


def stored_labels(content: NiftiContent, name: str) -> StoredLabels:
    """The values of a mask and the labels next to them.

    Raises:
        ImageError: a value is further than 0.01 from a whole number from 0; names the values and their voxels.
    """
    if content.voxels.dtype.kind not in "iuf":
        raise ImageError(f"{name}: expected one number a voxel, found {content.voxels.dtype} (colours or vectors).")
    voxels = content.voxels.ravel(order="K")
    inside = voxels[voxels != 0]
    stored, counts = np.unique(inside, return_counts=True)
    if len(inside) < len(voxels):
        stored = np.concatenate([np.zeros(1, stored.dtype), stored])
        counts = np.concatenate([[len(voxels) - len(inside)], counts])
    slope, intercept = content.scaling
    values = stored.astype(np.float64) * slope + intercept
    labels = np.rint(values)
    with np.errstate(invalid="ignore"):
        strange = ~(np.abs(values - labels) <= LABEL_TOLERANCE) | (labels < 0) | (labels > np.iinfo(np.uint16).max)
    if strange.any():
        shown = [f"{shown_value(v)} ({n} voxels)" for v, n in zip(values[strange], counts[strange], strict=True)]
        between = np.isfinite(values[strange]).all() and (values[strange] != labels[strange]).any()
        because = (
            " Values between labels come from interpolation: resample the mask by nearest neighbour."
            if between
            else " Correct the mask."
        )
        raise ImageError(
            f"{name}: expected mask values within {LABEL_TOLERANCE:g} of the whole numbers 0, 1, 2, ..., found "
            f"{listing(shown, 5)}.{because}"
        )
    return StoredLabels(stored, values, labels.astype(np.int64), counts)


def needs_rounding(content: NiftiContent) -> bool:
    """Whether a mask is read as floating point."""
    return content.voxels.dtype.kind == "f" or content.scaling != (1.0, 0.0)


def shown_value(value: float) -> str:
    """A value for a message."""
    return f"{value:.8g}"
