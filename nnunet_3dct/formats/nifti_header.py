"""Header and stored voxels of NIfTI files, compressed or not, whatever the name says.

ITK and nibabel replace a voxel size of 0 or NaN by 1 without a word, and ITK reads NaN among the voxels as 0, so both
are looked at here as they are stored.
"""

from __future__ import annotations

import contextlib
import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.file_kinds import is_gzip, is_nifti

_HEADER_BYTES = 540
_CHUNK = 1 << 20


@dataclass(frozen=True)
class NiftiHeader:
    """What a NIfTI header says.

    Attributes:
        version: 1 or 2.
        shape: in the file's order (x, y, z, ...).
        dtype: of the stored voxels.
        offset: bytes before the voxels.
        pixdim: voxel size (x, y, z) as it is stored.
        unit: of ``pixdim``: ``mm``, ``meter``, ``micron`` or ``unknown``.
        affine: 4x4, from voxel indices to patient coordinates in mm (right, anterior, superior).
        scaled: whether stored values are rescaled by a slope or intercept.
        qform, sform: the two matrices that a header can state, each 4x4 like ``affine``; None for one that it does not.
    """

    version: int
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    pixdim: tuple[float, ...]
    unit: str
    affine: np.ndarray
    scaled: bool = False
    qform: np.ndarray | None = None
    sform: np.ndarray | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of header and voxels."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    @property
    def axis_angles(self) -> tuple[float, ...]:
        """Angles between the axes in degrees: x with y, x with z, y with z; 90 unless the axes are sheared."""
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        cosines = [float(axes[:, a] @ axes[:, b]) for a, b in ((0, 1), (0, 2), (1, 2))]
        return tuple(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))) for cosine in cosines)


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header.

    Raises:
        ImageError: the file is no NIfTI image, its header is damaged, or it holds no voxels.
    """
    try:
        with open_nifti(path) as stream:
            start = stream.read(_HEADER_BYTES)
        if not is_nifti(start):
            raise ValueError("the signature of NIfTI is missing")
        raw = _header(start)
        shape = tuple(int(n) for n in raw.get_data_shape())
        dtype, offset = raw.get_data_dtype(), int(raw.get_data_offset())
        affine = _affine(raw)
        unit = raw.get_xyzt_units()[0]
    except Exception as error:  # nibabel raises many types for a broken header
        message = f"{path}: truncated, damaged or no NIfTI image; its header cannot be read ({error})"
        raise ImageError(f"{message}. Copy, download or convert it again.") from error
    if math.prod(shape) <= 0 or min(shape, default=0) <= 0:
        raise ImageError(f"{path}: expected an image, found a header with shape {shape}, without voxels.")
    pixdim = tuple(float(value) for value in raw["pixdim"][1 : 1 + min(3, len(shape))])
    version = 2 if isinstance(raw, nib.Nifti2Header) else 1
    forms = _stated_forms(raw)
    return NiftiHeader(version, shape, dtype, offset, pixdim, unit, affine, _is_scaled(raw), *forms)


@contextlib.contextmanager
def open_nifti(path: Path) -> Iterator[BinaryIO]:
    """Stream of the decompressed content, by the file's first bytes and not by its name."""
    with gzip.open(path) if is_gzip(path) else Path(path).open("rb") as stream:
        yield stream  # type: ignore[misc]


def stored_values(path: Path) -> np.ndarray:
    """Voxels before rescaling, with NaN and infinity as they stand in the file, axes (x, y, z, ...).

    Raises:
        ImageError: the header cannot be read.
    """
    header = read_nifti_header(path)
    with open_nifti(path) as stream:
        proxy = ArrayProxy(stream, (header.shape, header.dtype, header.offset), mmap=False)
        return np.asarray(proxy.get_unscaled())


def has_one_value(path: Path) -> bool:
    """Whether all voxels, more than one, are equal; reads no further than to the first that differs.

    Raises:
        ImageError: the header cannot be read.
    """
    header = read_nifti_header(path)
    if math.prod(header.shape) == 1:
        return False
    left = header.num_bytes - header.offset
    first: np.generic | None = None
    with open_nifti(path) as stream:
        stream.read(header.offset)
        while left > 0:
            chunk = stream.read(min(left, _CHUNK - _CHUNK % header.dtype.itemsize))
            values = np.frombuffer(chunk[: len(chunk) - len(chunk) % header.dtype.itemsize], header.dtype)
            if values.size == 0:
                return False  # truncated; told elsewhere
            first = values[0] if first is None else first
            if (values != first).any():
                return False
            left -= len(chunk)
    return True


def _header(start: bytes) -> nib.Nifti1Header:
    if start[4:6] in (b"n+", b"ni"):
        return nib.Nifti2Header(start[:540], check=False)
    return nib.Nifti1Header(start[:348], check=False)


def _stated_forms(raw: nib.Nifti1Header) -> tuple[np.ndarray | None, np.ndarray | None]:
    try:
        with np.errstate(invalid="ignore"):
            return raw.get_qform(coded=True)[0], raw.get_sform(coded=True)[0]
    except (HeaderDataError, ValueError):  # a quaternion or voxel sizes that cannot be
        return None, raw.get_sform(coded=True)[0]


def _is_scaled(raw: nib.Nifti1Header) -> bool:
    try:
        slope, intercept = raw.get_slope_inter()
    except HeaderDataError:  # an infinite one
        return True
    return (slope or 1.0, intercept or 0.0) != (1.0, 0.0)


def _affine(raw: nib.Nifti1Header) -> np.ndarray:
    try:
        with np.errstate(invalid="ignore"):
            return np.asarray(raw.get_best_affine(), dtype=float)
    except HeaderDataError:  # voxel sizes that cannot be; they are refused by their values
        return np.diag([*raw["pixdim"][1:4], 1.0])
