"""Volumes in one orientation: axes ``(Z, Y, X)`` run from feet to head, front to back, the patient's right to left."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.image_files import check_image_file
from nnunet_3dct.formats.label_values import whole_labels


@dataclass(frozen=True)
class OrientedVolume:
    """Voxels ``(Z, Y, X)``, oriented, and their ``spacing`` in mm in the same order."""

    array: np.ndarray
    spacing: tuple[float, float, float]


def read_oriented(path: Path, case: str) -> OrientedVolume:
    """Read a volume and turn it; axes that lie obliquely in the patient are taken for the nearest ones.

    Raises:
        ImageError: the file is unreadable, truncated, or no volume of one channel.
    """
    check_image_file(path)
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ImageError(f"Case {case}: {path} cannot be read: {reason}. Copy it again.") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ImageError(
            f"Case {case}: expected a volume of three axes and one channel, found {image.GetDimension()} axes and "
            f"{image.GetNumberOfComponentsPerPixel()} channels in {path}."
        )
    turned = SimpleITK.DICOMOrient(image, "LPS")
    x, y, z = turned.GetSpacing()
    return OrientedVolume(SimpleITK.GetArrayFromImage(turned), (z, y, x))


def read_labels(path: Path, case: str, known: Collection[int]) -> OrientedVolume:
    """Read a label volume as whole numbers.

    Raises:
        ImageError: as :func:`read_oriented`, or a value is none of the ``known`` labels.
    """
    volume = read_oriented(path, case)
    labels, _ = whole_labels(volume.array, known, f"Case {case}: {path}")
    return OrientedVolume(labels.astype(np.int16), volume.spacing)
