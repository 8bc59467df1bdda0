"""Checks of image files before anything is computed from them.

SimpleITK fills the missing rest of a truncated NIfTI file with zeros and reports nothing, so a file's length
is compared with what its own header asks for. It also reads NaN and infinity in a NIfTI file as 0, which is
soft tissue in a CT, so those are looked for in the values as stored.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError, listing

_CHUNK = 1 << 20
_GIPL_HEADER = 256
_AGAIN = "Copy, download or convert it again"
_FLOAT_PIXELS = (
    SimpleITK.sitkFloat32,
    SimpleITK.sitkFloat64,
    SimpleITK.sitkVectorFloat32,
    SimpleITK.sitkVectorFloat64,
)


@dataclass(frozen=True)
class Geometry:
    """Grid of a volume in SimpleITK's order (x, y, z): ``size`` in voxels, ``spacing`` and ``origin`` in mm,
    ``direction`` as the cosines row by row; ``channels`` and ``floating`` describe the voxels."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    channels: int
    floating: bool


def check_image_file(path: Path) -> None:
    """Make sure that ``path`` is a whole, readable image file.

    NIfTI and GIPL files are compared with the length that their header asks for (``.nii.gz`` is decompressed
    to its end in small pieces); other formats are read once, since their readers refuse missing data
    themselves. One gap remains: a truncated multi-page TIFF reads as a volume with fewer slices.

    Raises:
        ImageError: the file is missing, empty, truncated, damaged or holds no voxels.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: expected an image file, found {'a folder' if path.is_dir() else 'nothing'}.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: expected an image, found a file of 0 bytes. {_AGAIN}.")
    name = path.name.lower()
    if name.endswith(".nii.gz"):
        needed = _nifti_bytes(path)
        found, end = _stream_bytes(path)
        if end or found < needed:
            raise _truncated(path, needed, f"{found} after decompression{end}")
    elif name.endswith((".nii", ".gipl")):
        needed = _nifti_bytes(path) if name.endswith(".nii") else _gipl_bytes(path)
        if path.stat().st_size < needed:
            raise _truncated(path, needed, str(path.stat().st_size))
    else:
        _read(path)


def read_geometry(path: Path) -> Geometry:
    """Grid of ``path`` from its header alone.

    Raises:
        ImageError: SimpleITK cannot read the header, for instance because its axes are sheared.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    _attempt(reader.ReadImageInformation, path)
    return image_geometry(reader)


def image_geometry(image: SimpleITK.Image | SimpleITK.ImageFileReader) -> Geometry:
    """Grid of an image in memory, or of a file whose header was read."""
    size = image.GetSize()
    if isinstance(image, SimpleITK.Image):
        components = image.GetNumberOfComponentsPerPixel()
    else:
        components = image.GetNumberOfComponents()
    # a fourth axis holds channels, as nnU-Net's SimpleITKIO takes it
    return Geometry(
        size=size,
        spacing=image.GetSpacing(),
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
        channels=components * (size[3] if len(size) == 4 else 1),
        floating=image.GetPixelID() in _FLOAT_PIXELS,
    )


def check_case_files(files: Sequence[Path], expected_channels: int, case: str, *, read_voxels: bool = True) -> None:
    """Check the images of one case: files whole, channels complete, all on one grid, all values finite.

    Args:
        files: one file a channel, in order (an RGB picture counts as three channels).
        expected_channels: number of ``channel_names`` in dataset.json.
        case: the identifier for messages.
        read_voxels: look for NaN and infinity too, where voxels are stored as floating point.

    Raises:
        ImageError: at the first problem.
    """
    for path in files:
        check_image_file(path)
    grids = [read_geometry(path) for path in files]
    found = sum(grid.channels for grid in grids)
    if found != expected_channels:
        names = f" ({listing([Path(f).name for f in files])})" if files else ""
        raise ImageError(
            f"{case}: expected {expected_channels} channel(s), found {found}{names}. "
            "Give one file a channel, named <case>_0000, <case>_0001, ... as dataset.json counts them."
        )
    for path, grid in zip(files[1:], grids[1:], strict=True):
        differences = geometry_differences(grid, grids[0])
        if differences:
            raise ImageError(
                f"{case}: the channels lie on different grids; {Path(path).name} against "
                f"{Path(files[0]).name}: {'; '.join(differences)}. Resample them to one grid."
            )
    if read_voxels:
        for path, grid in zip(files, grids, strict=True):
            if grid.floating:
                check_finite(_stored_values(path), f"{case} ({Path(path).name})")


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


def check_label_fits_image(label: Path, image: Path, case: str) -> None:
    """Raise ImageError when the label volume does not lie on the image's grid (headers only are read)."""
    differences = geometry_differences(read_geometry(label), read_geometry(image))
    if differences:
        raise ImageError(
            f"{case}: label {label} does not fit image {Path(image).name}: {'; '.join(differences)}. "
            "Resample the label to the image (nearest neighbour), or copy the image's header if only that "
            "is wrong."
        )


def check_label_values(label: Path, allowed: Iterable[int], case: str) -> None:
    """Raise ImageError when the label volume holds a value that is not in ``allowed``."""
    allowed = sorted(allowed)
    values = SimpleITK.GetArrayFromImage(_read(label))
    strange, counts = np.unique(values[~np.isin(values, allowed)], return_counts=True)
    if strange.size:
        found = [f"{value} ({count} voxels)" for value, count in zip(strange.tolist(), counts, strict=True)]
        raise ImageError(
            f"{case}: label {label}: expected the values {allowed} of dataset.json, found also "
            f"{listing(found)}. Correct the volume or add the label to dataset.json."
        )


def geometry_differences(found: Geometry, expected: Geometry) -> list[str]:
    """What keeps two volumes from sharing a grid, one text each; empty when they agree.

    Tolerances: spacing 0.1 %, origin a tenth of the smallest voxel edge, direction cosines 0.001. They lie
    above the rounding of a NIfTI header, which keeps single precision.
    """
    if found.size != expected.size:
        return [f"size (x, y, z) expected {expected.size}, found {found.size}"]
    comparisons = (
        ("spacing in mm", found.spacing, expected.spacing, 1e-3, 0.0),
        ("origin in mm", found.origin, expected.origin, 0.0, 0.1 * min(expected.spacing)),
        ("direction", found.direction, expected.direction, 0.0, 1e-3),
    )
    return [
        f"{name} expected {_rounded(theirs)}, found {_rounded(ours)}"
        for name, ours, theirs, rtol, atol in comparisons
        if not np.allclose(ours, theirs, rtol=rtol, atol=atol)
    ]


def _rounded(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value + 0.0:.6g}" for value in values) + ")"


def _truncated(path: Path, needed: int, found: str) -> ImageError:
    return ImageError(
        f"{path}: truncated or damaged; its header asks for {needed} bytes, found {found}. {_AGAIN}; "
        "a full disk or an interrupted transfer leaves such a file."
    )


def _nifti_bytes(path: Path) -> int:
    """Bytes of header and voxels that the NIfTI header asks for."""
    try:
        voxels = nib.load(path).dataobj  # type: ignore[attr-defined]
    except Exception as error:  # nibabel raises many types for a broken header
        message = f"{path}: truncated, damaged or no NIfTI image; its header cannot be read ({error}). {_AGAIN}."
        raise ImageError(message) from error
    if math.prod(voxels.shape) == 0:
        raise ImageError(f"{path}: expected an image, found a header with shape {voxels.shape}, without voxels.")
    return int(voxels.offset) + math.prod(voxels.shape) * int(voxels.dtype.itemsize)


def _gipl_bytes(path: Path) -> int:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    _attempt(reader.ReadImageInformation, path)
    itemsize = SimpleITK.GetArrayFromImage(SimpleITK.Image([1, 1], reader.GetPixelID())).dtype.itemsize
    return _GIPL_HEADER + math.prod(reader.GetSize()) * itemsize


def _stream_bytes(path: Path) -> tuple[int, str]:
    """Decompressed length of a gzip file and, if its end was not reached, how the stream stops."""
    total = 0
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read1(_CHUNK):  # read() would drop what precedes a break
                total += len(chunk)
    except EOFError:
        return total, ", where the gzip stream breaks off"
    except (gzip.BadGzipFile, zlib.error) as error:
        return total, f", where the gzip stream is damaged ({error})"
    return total, ""


def _stored_values(path: Path) -> np.ndarray:
    """Voxels before rescaling, with NaN and infinity as they stand in the file."""
    if Path(path).name.lower().endswith((".nii", ".nii.gz")):
        return nib.load(path).dataobj.get_unscaled()  # type: ignore[attr-defined]
    return SimpleITK.GetArrayFromImage(_read(path))


def _read(path: Path) -> SimpleITK.Image:
    return _attempt(lambda: SimpleITK.ReadImage(str(path)), path)


def _attempt(read: Callable[[], SimpleITK.Image], path: Path) -> SimpleITK.Image:
    try:
        return read()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ImageError(f"{path}: cannot be read as an image: {reason}. {_AGAIN}.") from error
