"""Which of nnU-Net's readers reads the images of a dataset or model: the one that plans or dataset.json name."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nnunet_3dct.errors import ImageError

# nnU-Net's own dictionaries: dataset.json, plans, and what a reader says of an image
DatasetJson = dict[str, Any]
Plans = Mapping[str, Any]
ImageProperties = dict[str, Any]

READERS = (
    "SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient", "NaturalImage2DIO", "Tiff3DIO",
)  # fmt: skip


class ImageReader(Protocol):
    """What nnU-Net's readers have in common.

    Arrays are ``(C, Z, Y, X)``; ``spacing`` in the properties is (Z, Y, X) in mm.
    """

    def read_images(self, image_fnames: Sequence[str], /) -> tuple[np.ndarray, ImageProperties]:
        """Read the files of one case."""

    def read_seg(self, seg_fname: str, /) -> tuple[np.ndarray, ImageProperties]:
        """Read one label volume."""

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: ImageProperties, /) -> None:
        """Write labels ``(Z, Y, X)`` on the grid of ``properties``."""


Reader = str | type[ImageReader] | ImageReader  # its name, its class or one of it


def reader_name(reader: Reader) -> str:
    """Name of the class, such as ``SimpleITKIO``."""
    if isinstance(reader, str):
        return reader
    return reader.__name__ if isinstance(reader, type) else type(reader).__name__


def reads_with_nibabel(reader: Reader | None) -> bool:
    """Whether the reader opens files with nibabel, which takes what ITK refuses, such as sheared axes."""
    return reader is not None and reader_name(reader).startswith("Nibabel")


def choose_reader(
    dataset_json: Mapping[str, Any], example: Path | None = None, plans: Plans | None = None
) -> type[ImageReader]:
    """Reader of the images of a dataset or model.

    It is the one that ``image_reader_writer`` of the plans names, else ``overwrite_image_reader_writer`` of
    dataset.json, else the first of nnU-Net's that has the file ending and can read ``example``.

    Raises:
        ImageError: the name is none of a reader of nnU-Net, or no reader can read the example or has the ending.
    """
    for source, key, content in (
        ("plans", "image_reader_writer", plans or {}),
        ("dataset.json", "overwrite_image_reader_writer", dataset_json),
    ):
        name = content.get(key)
        if name is not None and name != "None":
            return find_reader_class(str(name), f"{source}: {key}")
    from nnunet_3dct.upstream import determine_reader_writer_from_dataset_json

    ending = dataset_json["file_ending"]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # nnU-Net prints the traceback of each that fails
            reader: type[ImageReader] = determine_reader_writer_from_dataset_json(
                {"file_ending": ending}, None if example is None else str(example), verbose=False
            )
        return reader
    except RuntimeError as error:
        if example is None:
            message = (
                f"file_ending: none of nnU-Net's readers reads {ending}. Convert the images, for instance to .nii.gz."
            )
        else:
            message = f"{example}: none of nnU-Net's readers can read this file. Replace it."
        raise ImageError(message) from error


def find_reader_class(name: str, where: str = "reader") -> type[ImageReader]:
    """Class of nnU-Net's reader ``name``.

    Raises:
        ImageError: there is none of that name; ``where`` says what asked for it.
    """
    from nnunet_3dct.upstream import recursive_find_reader_writer_by_name

    try:
        reader: type[ImageReader] = recursive_find_reader_writer_by_name(name)
    except RuntimeError as error:
        raise ImageError(
            f"{where}: expected a reader of nnU-Net, such as {', '.join(READERS)}, found {name!r}. Correct the name."
        ) from error
    return reader
