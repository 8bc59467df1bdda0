"""One rule for the values of label volumes: within 0.01 of a label they are that label, and everything else is refused.

A scaling factor in a header turns label 1 into 1.0000153, so whole numbers alone would be too strict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError, listing
from nnunet_3dct.formats.geometry import NIFTI, attempt
from nnunet_3dct.formats.image_readers import Reader, reads_with_nibabel
from nnunet_3dct.formats.nifti_header import read_nifti_header, stored_values

LABEL_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Rounding:
    """Voxels of a label volume that were no whole numbers.

    Attributes:
        voxels: how many.
        below: how many of them lie below their label, such as 0.99996.
        example: one of the values.
    """

    voxels: int
    below: int
    example: float


def whole_labels(values: np.ndarray, known: Iterable[int], name: str) -> tuple[np.ndarray, Rounding | None]:
    """Values of a label volume (any shape) as whole numbers, and what had to be rounded.

    Args:
        values: as read; returned as they are when they are whole.
        known: labels of the dataset, the ignore label among them.
        name: of the case or file, for the message.

    Raises:
        ImageError: a value is further than 0.01 from every label; says which and how many voxels have it.

    Examples:
        >>> import numpy as np
        >>> whole_labels(np.array([0, 1.0000153, 2]), [0, 1, 2], "case_0")
        (array([0., 1., 2.]), Rounding(voxels=1, below=0, example=1.0000153))
    """
    inside = values != 0  # few voxels of a CT are not background: all further checks look at these
    found = values[inside]
    labels = np.rint(found)
    known = sorted(known)
    with np.errstate(invalid="ignore"):  # NaN and infinity are no labels either
        strange = ~np.isin(labels, known) | (np.abs(found - labels) > LABEL_TOLERANCE)
    if strange.any():
        raise _strange(found[strange], known, name)
    moved = found != labels
    if not moved.any():
        return values, None
    whole = values.copy()
    whole[inside] = labels
    below = int(np.count_nonzero(found < labels))
    return whole, Rounding(int(np.count_nonzero(moved)), below, float(found[moved][0]))


def check_label_values(
    label: Path, allowed: Iterable[int], case: str, *, reader: Reader | None = None
) -> Rounding | None:
    """Make sure that the label volume holds labels of the dataset; returns what had to be rounded for it.

    Args and Raises: see :func:`read_whole_labels`.
    """
    return read_whole_labels(label, allowed, case, reader=reader)[1]


def read_whole_labels(
    label: Path, allowed: Iterable[int], case: str, *, reader: Reader | None = None
) -> tuple[np.ndarray, Rounding | None]:
    """Labels of a volume as whole numbers, axes (Z, Y, X), and what had to be rounded for it.

    Args:
        label: a whole file, see :func:`~nnunet_3dct.formats.image_files.check_image_file`.
        allowed: labels of dataset.json, the ignore label among them.
        case: for the message.
        reader: that plans or dataset.json name, by name or class; None for one that uses ITK.

    Raises:
        ImageError: see :func:`whole_labels`; or a voxel is NaN or infinite.
    """
    check_finite_labels(label)
    if reads_with_nibabel(reader):
        values = np.asarray(nib.load(label).dataobj).transpose()  # type: ignore[attr-defined]
    else:
        values = SimpleITK.GetArrayFromImage(attempt(lambda: SimpleITK.ReadImage(str(label)), Path(label)))
    if values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)  # as nnU-Net's readers do
    return whole_labels(values, allowed, f"{case}: label {label}")


def check_finite_labels(label: Path) -> None:
    """Raise ImageError when a NIfTI label volume stores NaN or infinity, which ITK reads as background."""
    if Path(label).name.lower().endswith(NIFTI) and read_nifti_header(label).dtype.kind == "f":
        bad = int(np.count_nonzero(~np.isfinite(stored_values(label))))
        if bad:
            raise ImageError(
                f"{label}: expected whole labels, found NaN or infinity in {bad} voxels, which readers take for "
                "background. Write the volume with whole numbers."
            )


def _strange(values: np.ndarray, known: list[int], name: str) -> ImageError:
    unique, counts = np.unique(values, return_counts=True)
    shown = [f"{_text(value)} ({count} voxels)" for value, count in zip(unique.tolist(), counts, strict=True)]
    if (unique == np.rint(unique)).all():
        remedy = "Correct the volume, or add the label to dataset.json."
    else:
        remedy = (
            "Write the volume with whole numbers; values between labels come from interpolation, so resample labels by "
            "nearest neighbour."
        )
    return ImageError(f"{name}: expected the labels {known} of dataset.json, found also {listing(shown, 5)}. {remedy}")


def _text(value: float) -> str:
    return str(round(value, 7))
