"""Checks of image files before anything is computed from them.

SimpleITK fills the missing rest of a truncated NIfTI file with zeros and reports nothing, so a file's length
is compared with what its own header asks for. It also reads NaN and infinity in a NIfTI file as 0, which is
soft tissue in a CT, so those are looked for in the values as stored.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError, listing
from nnunet_3dct.formats.file_kinds import DAMAGED, PACKED, PACKED_NIFTI, PLAIN_NIFTI, is_gzip, what_is
from nnunet_3dct.formats.geometry import (
    AGAIN,
    NIFTI,
    Geometry,
    attempt,
    check_planned_size,
    check_spacing,
    geometry_differences,
    image_geometry,
    read_geometry,
)
from nnunet_3dct.formats.image_readers import Reader, reader_name, reads_with_nibabel
from nnunet_3dct.formats.nifti_header import has_one_value, open_nifti, read_nifti_header, stored_values

__all__ = [
    "Geometry",
    "check_case_content",
    "check_case_files",
    "check_file_kind",
    "check_finite",
    "check_image_file",
    "check_label_fits_image",
    "check_planned_size",
    "check_spacing",
    "check_stream",
    "geometry_differences",
    "image_geometry",
    "is_constant",
    "read_geometry",
    "read_voxels",
    "unpacked_under_a_compressed_name",
]

_CHUNK = 1 << 20
_GIPL_HEADER = 256


def check_image_file(path: Path, *, reader: Reader | None = None) -> None:
    """Make sure that ``path`` is a whole, readable image file.

    NIfTI and GIPL files are compared with the length that their header asks for (``.nii.gz`` is decompressed
    to its end in small pieces); other formats are read once, since their readers refuse missing data
    themselves. One gap remains: a truncated multi-page TIFF reads as a volume with fewer slices.

    Args:
        path: of an image or label volume.
        reader: that nnU-Net uses for it, by name or class; None for one that uses ITK.

    Raises:
        ImageError: the file is missing, empty, truncated, damaged, holds no voxels, or is something else than its
            name says; the message says what it is.
    """
    path = Path(path)
    check_file_kind(path, reader=reader)
    name = path.name.lower()
    if name.endswith(NIFTI):
        needed = read_nifti_header(path).num_bytes
        if is_gzip(path):
            check_stream(path, needed)
        elif path.stat().st_size < needed:
            raise _truncated(path, needed, str(path.stat().st_size))
    elif name.endswith(".gipl"):
        needed = _gipl_bytes(path)
        if path.stat().st_size < needed:
            raise _truncated(path, needed, str(path.stat().st_size))
    else:
        _read(path)


def check_file_kind(path: Path, *, reader: Reader | None = None) -> None:
    """The part of :func:`check_image_file` that reads no more than the first bytes of the file."""
    if not path.is_file():
        raise ImageError(f"{path}: expected an image file, found {'a folder' if path.is_dir() else 'nothing'}.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: expected an image, found a file of 0 bytes. {AGAIN}.")
    if path.name.lower().endswith(NIFTI):
        _check_twin(path, reader)
        _check_nifti_kind(path, reader)


def check_stream(path: Path, needed: int, output: BinaryIO | None = None) -> None:
    """Decompress a gzip file to its end in small pieces, into ``output`` if given.

    Raises:
        ImageError: the stream is damaged or shorter than ``needed`` bytes.
    """
    length, end = 0, ""
    try:
        with open_nifti(path) as stream:
            while chunk := stream.read1(_CHUNK):  # type: ignore[attr-defined]  # read() would drop what precedes a break
                length += len(chunk)
                if output is not None:
                    output.write(chunk)
    except EOFError:
        end = ", where the gzip stream breaks off"
    except (gzip.BadGzipFile, zlib.error) as error:
        end = f", where the gzip stream is damaged ({error})"
    if end or length < needed:
        raise _truncated(path, needed, f"{length} after decompression{end}")


def unpacked_under_a_compressed_name(path: Path) -> bool:
    """Whether a ``.nii.gz`` is a plain NIfTI file, as browsers and some servers leave.

    ITK reads such a file, nibabel does not.
    """
    return path.name.lower().endswith(".nii.gz") and what_is(path) == PLAIN_NIFTI


def check_case_files(
    files: Sequence[Path],
    expected_channels: int,
    case: str,
    *,
    reader: Reader | None = None,
    read_voxels: bool = True,
    refuse_constant: bool = False,
) -> None:
    """Check the images of one case: files whole, channels complete, all on one grid, voxel sizes and values sound.

    Args:
        files: one file a channel, in order (an RGB picture counts as three channels).
        expected_channels: number of ``channel_names`` in dataset.json.
        case: the identifier for messages.
        reader: that plans or dataset.json name, by name or class; None for one that uses ITK.
        read_voxels: look for NaN and infinity too, where voxels are stored as floating point.
        refuse_constant: with ``read_voxels``, an image whose voxels are all equal is a problem.

    Raises:
        ImageError: at the first problem.
    """
    files = [Path(path) for path in files]
    for path in files:
        check_image_file(path, reader=reader)
    check_case_content(
        files, expected_channels, case, reader=reader, read_voxels=read_voxels, refuse_constant=refuse_constant
    )


def check_case_content(
    files: Sequence[Path],
    expected_channels: int,
    case: str,
    *,
    reader: Reader | None = None,
    read_voxels: bool = True,
    refuse_constant: bool = False,
) -> None:
    """What :func:`check_case_files` checks of files that are known to be whole."""
    grids = [read_geometry(path, reader=reader) for path in files]
    channels = sum(grid.channels for grid in grids)
    if channels != expected_channels:
        names = f" ({listing([path.name for path in files])})" if files else ""
        raise ImageError(
            f"{case}: expected {expected_channels} channel(s), found {channels}{names}. "
            "Give one file a channel, named <case>_0000, <case>_0001, ... as dataset.json counts them."
        )
    for path, grid in zip(files, grids, strict=True):
        check_spacing(grid, case, path)
        differences = geometry_differences(grid, grids[0])
        if differences:
            raise ImageError(
                f"{case}: the channels lie on different grids; {path.name} against "
                f"{files[0].name}: {'; '.join(differences)}. Resample them to one grid."
            )
    if read_voxels:
        for path, grid in zip(files, grids, strict=True):
            _check_voxels(path, grid, f"{case} ({path.name})", refuse_constant)


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise ImageError when ``array`` (any shape) is empty or holds NaN or infinity.

    One such voxel is enough to spoil a case: normalisation and spline resampling spread it over the volume.
    """
    if array.size == 0:
        raise ImageError(f"{name}: expected an image, found a volume without voxels, shape {array.shape}.")
    if np.issubdtype(array.dtype, np.floating):
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise ImageError(
                f"{name}: expected finite intensities, found NaN or infinity in {bad} of {array.size} "
                "voxels. Replace them by a value that suits the image, such as -1024 HU for air in CT."
            )


def is_constant(array: np.ndarray) -> bool:
    """Whether all values of ``array`` (any shape) are equal: an image without content, as a failed export of zeros.

    A single voxel is not called constant.

    Examples:
        >>> import numpy as np
        >>> is_constant(np.zeros((2, 3, 3))), is_constant(np.eye(3))
        (True, False)
    """
    return array.size > 1 and bool(array.min() == array.max())


def check_label_fits_image(label: Path, image: Path, case: str, *, reader: Reader | None = None) -> None:
    """Raise ImageError when the label volume does not lie on the image's grid (headers only are read)."""
    differences = geometry_differences(read_geometry(label, reader=reader), read_geometry(image, reader=reader))
    if differences:
        raise ImageError(
            f"{case}: label {label} does not fit image {Path(image).name}: {'; '.join(differences)}. "
            "Resample the label to the image (nearest neighbour), or copy the image's header if only that "
            "is wrong."
        )


def read_voxels(path: Path, reader: Reader | None = None) -> np.ndarray:
    """Voxels of a file with one channel, in its own order ``(Z, Y, X)`` and of its own type, whatever a reader turns.

    Raises:
        ImageError: it cannot be read.
    """
    if reads_with_nibabel(reader):
        values = np.asarray(nib.load(path).dataobj).transpose()  # type: ignore[attr-defined]
    else:
        values = SimpleITK.GetArrayFromImage(_read(Path(path)))
    voxels: np.ndarray = values.reshape(values.shape[-3:]) if values.ndim > 3 and values.shape[0] == 1 else values
    return voxels


def _check_twin(path: Path, reader: Reader | None) -> None:
    """Refuse ``a.nii.gz`` beside ``a.nii``, from which ITK takes the voxels, even where that is a folder."""
    twin = path.with_name(path.name[: -len(".gz")])
    if path.name.lower().endswith(".gz") and twin.exists() and not reads_with_nibabel(reader):
        raise ImageError(
            f"{path}: expected one file for this image, found {twin.name} beside it, which ITK would open in its "
            "place. Keep the right one of them and move the other to another folder."
        )


def _check_nifti_kind(path: Path, reader: Reader | None) -> None:
    """Refuse what is no NIfTI file, or compressed otherwise than its name and the reader allow."""
    kind, compressed_name = what_is(path), path.name.lower().endswith(".gz")
    if kind == PLAIN_NIFTI and compressed_name and reads_with_nibabel(reader):
        remedy = f"{reader_name(reader or '')} does not read it under this name: name it .nii, or compress it by gzip"
    elif kind == PACKED_NIFTI and not compressed_name:
        remedy = "Name it .nii.gz, or decompress it"
    elif kind in (None, PLAIN_NIFTI, PACKED_NIFTI, PACKED, DAMAGED):
        return  # its header says more
    else:
        remedy = "Replace it by the image"
    raise ImageError(
        f"{path}: expected a NIfTI image{' compressed by gzip' * compressed_name}, found {kind}. {remedy}."
    )


def _check_voxels(path: Path, grid: Geometry, name: str, refuse_constant: bool) -> None:
    nifti = path.name.lower().endswith(NIFTI)
    values = None
    if grid.floating or (refuse_constant and not nifti):
        values = stored_values(path) if nifti else SimpleITK.GetArrayFromImage(_read(path))
        check_finite(values, name)
    if refuse_constant and (is_constant(values) if values is not None else has_one_value(path)):
        raise ImageError(
            f"{name}: expected an image, found one and the same value in every voxel. Export the image again, or "
            "remove the case."
        )


def _truncated(path: Path, needed: int, length: str) -> ImageError:
    return ImageError(
        f"{path}: truncated or damaged; its header asks for {needed} bytes, found {length}. {AGAIN}; "
        "a full disk or an interrupted transfer leaves such a file."
    )


def _gipl_bytes(path: Path) -> int:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    attempt(reader.ReadImageInformation, path)
    itemsize = SimpleITK.GetArrayFromImage(SimpleITK.Image([1, 1], reader.GetPixelID())).dtype.itemsize
    return _GIPL_HEADER + int(math.prod(reader.GetSize()) * itemsize)


def _read(path: Path) -> SimpleITK.Image:
    return attempt(lambda: SimpleITK.ReadImage(str(path)), path)
