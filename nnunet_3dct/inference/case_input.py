"""The image of a case, from files or from memory, as nnU-Net's readers give it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.case_images import read_case_images
from nnunet_3dct.formats.geometry import Geometry, check_spacing, geometry_differences, image_geometry, read_geometry
from nnunet_3dct.formats.image_files import check_finite, read_voxels
from nnunet_3dct.formats.image_readers import reader_name
from nnunet_3dct.inference.model import TrainedModel

IN_MEMORY = "image in memory"
Stored = Callable[[], list[np.ndarray]]


@dataclass(frozen=True)
class CaseInput:
    """One image.

    Attributes:
        case: identifier, for messages.
        image: ``(C, Z, Y, X)``, float32.
        properties: of the reader, with ``spacing`` (Z, Y, X) in mm.
        geometry: grid of the file or image; None for an array and where nobody asked.
        stored: reads the voxels ``(Z, Y, X)`` of each channel as the source holds them; None for an image in memory.
    """

    case: str
    image: np.ndarray
    properties: dict[str, Any]
    geometry: Geometry | None = None
    stored: Stored | None = None


def from_files(files: Sequence[Path], model: TrainedModel, case: str, *, with_geometry: bool = False) -> CaseInput:
    """Read and check the files of a case, one a channel, with the reader of the model's plans.

    Raises:
        ImageError: see :func:`~nnunet_3dct.formats.case_images.read_case_images`.
    """
    reader = model.plans_manager.image_reader_writer_class()
    image, properties = read_case_images(files, reader, model.num_channels, case)
    geometry = read_geometry(files[0], reader=reader) if with_geometry else None
    return CaseInput(case, image, properties, geometry, lambda: [read_voxels(path, reader) for path in files])


def from_images(images: Sequence[SimpleITK.Image], model: TrainedModel) -> CaseInput:
    """Take SimpleITK images, one a channel.

    Raises:
        ImageError: they lie on different grids, or as :func:`from_array`.
    """
    first = image_geometry(images[0])
    for number, image in enumerate(images[1:], start=1):
        differences = geometry_differences(image_geometry(image), first)
        if differences:
            raise ImageError(
                f"Predictor: expected channels on one grid, found channel {number} against channel 0: "
                f"{'; '.join(differences)}. Resample them to one grid."
            )
    array = np.stack([SimpleITK.GetArrayFromImage(image) for image in images])
    return from_array(array, images[0].GetSpacing()[::-1], model, first)


def from_array(
    image: np.ndarray, spacing: Sequence[float] | None, model: TrainedModel, geometry: Geometry | None = None
) -> CaseInput:
    """Take an array ``(Z, Y, X)`` or ``(C, Z, Y, X)`` with its spacing (Z, Y, X) in mm.

    Raises:
        ImageError: shape, spacing or values cannot be used, or the model's reader turns images.
    """
    reader = reader_name(model.plans_manager.image_reader_writer_class)
    if "Reorient" in reader:
        raise ImageError(
            f"Predictor: expected image files, since this model's reader ({reader}) turns them to its own "
            "orientation; found an image in memory."
        )
    array = image[None] if image.ndim == 3 else image
    if array.ndim != 4 or len(array) != model.num_channels:
        raise ImageError(
            f"Predictor: expected an image of 3 axes for each of {model.num_channels} channels, found shape "
            f"{image.shape}."
        )
    if spacing is None or len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise ImageError(f"Predictor: expected spacing (Z, Y, X) in mm beside an array, found {spacing}.")
    array = array.astype(np.float32)
    check_finite(array, IN_MEMORY)
    turned = tuple(float(s) for s in spacing)[::-1]
    grid = geometry or Geometry(array.shape[:0:-1], turned, (0.0,) * 3, tuple(np.eye(3).ravel()), len(array), True)
    check_spacing(grid, IN_MEMORY)
    return CaseInput(IN_MEMORY, array, {"spacing": [float(s) for s in spacing]}, geometry)
