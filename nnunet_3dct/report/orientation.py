"""Volumes in one orientation: axes ``(Z, Y, X)`` run from feet to head, front to back, the patient's right to left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import orientations

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.case_images import read_case_images
from nnunet_3dct.formats.geometry import Geometry, read_geometry
from nnunet_3dct.formats.image_readers import ImageProperties, ImageReader
from nnunet_3dct.formats.label_volumes import Volume

nibabel: Any = orientations  # whose functions have no types


@dataclass(frozen=True)
class OrientedVolume:
    """Voxels ``(Z, Y, X)``, oriented, and their ``spacing`` in mm in the same order."""

    array: np.ndarray
    spacing: tuple[float, float, float]


def orient(array: np.ndarray, properties: ImageProperties) -> OrientedVolume:
    """Turn a volume; axes that lie obliquely in the patient are taken for the nearest ones.

    Args:
        array: ``(Z, Y, X)`` as one of nnU-Net's readers returns it, which may have turned it already.
        properties: of the same reader; without a direction the axes are taken for those of the patient.
    """
    affine = np.eye(4)
    affine[:3, :3] = _axes(properties)
    turn = nibabel.ornt_transform(nibabel.io_orientation(affine), nibabel.axcodes2ornt(("L", "P", "S")))
    spacing = [0.0, 0.0, 0.0]
    for axis, size in zip(turn[:, 0].astype(int), reversed(properties["spacing"]), strict=True):
        spacing[axis] = float(size)
    turned = nibabel.apply_orientation(array.transpose(2, 1, 0), turn).transpose(2, 1, 0)
    return OrientedVolume(np.ascontiguousarray(turned), (spacing[2], spacing[1], spacing[0]))


def _axes(properties: ImageProperties) -> np.ndarray:
    """Directions of the array's x, y and z, one a column, to the patient's right, anterior and superior."""
    by_nibabel = properties.get("nibabel_stuff", {})
    affine = by_nibabel.get("reoriented_affine", by_nibabel.get("original_affine"))
    if affine is not None:
        return np.asarray(affine, float)[:3, :3]
    direction = properties.get("sitk_stuff", {}).get("direction", np.eye(3))
    # ITK's axes run to the patient's left and posterior
    axes: np.ndarray = np.diag([-1.0, -1.0, 1.0]) @ np.reshape(direction, (3, 3))
    return axes


def orient_labels(volume: Volume, case: str) -> OrientedVolume:
    """Turn a label volume that is already read.

    Raises:
        ImageError: it has not three axes, so that there is no telling how it lies in the patient.
    """
    _check_axes(volume.geometry, case, "label volume")
    return orient(volume.labels[0].astype(np.int16), volume.properties)


def read_image(path: Path, case: str, what: str, reader: ImageReader) -> OrientedVolume:
    """Read one channel of an image, or a map of the evidence, and turn it.

    Args:
        path: of the file.
        case: identifier, for messages.
        what: it is, for messages.
        reader: nnU-Net's, of the dataset.

    Raises:
        ImageError: the file is unreadable or truncated, or holds several channels.
    """
    try:
        geometry = read_geometry(path, reader=reader)
        _check_axes(geometry, case, what)
        values, properties = read_case_images([path], reader, 1, case)
    except ImageError as error:
        message = str(error)
        raise ImageError(message if case in message else f"Case {case}: {message}") from error
    return orient(values[0], properties)


def _check_axes(geometry: Geometry, case: str, what: str) -> None:
    if len(geometry.size) != 3 or geometry.channels != 1:
        raise ImageError(
            f"Case {case}: expected a {what} of three axes and one channel, found {len(geometry.size)} axes and "
            f"{geometry.channels} channels. The report shows volumes of a patient alone."
        )
