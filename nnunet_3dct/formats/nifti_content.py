"""NIfTI files as they are stored: the bytes before the voxels and the voxels before rescaling.

A repair changes one of the two and leaves the rest as it is, and what it changed can be put back.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.atomic import write_file
from nnunet_3dct.formats.geometry import attempt
from nnunet_3dct.formats.nifti_header import open_nifti, read_nifti_header

_LEVEL = 6  # of gzip


@dataclass(frozen=True)
class NiftiContent:
    """Content of a NIfTI-1 file.

    Attributes:
        start: all bytes before the voxels: the header, and extensions where there are some.
        voxels: as stored, axes (x, y, z, ...).
    """

    start: bytes
    voxels: np.ndarray

    @cached_property
    def header(self) -> nib.Nifti1Header:
        """A copy of the header."""
        return nib.Nifti1Header(self.start[:348], check=False)

    @property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept from stored values to values; (1, 0) where the header has none."""
        try:
            slope, intercept = self.header.get_slope_inter()
        except ValueError:  # infinite ones
            slope, intercept = None, None
        return (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))

    @property
    def affine(self) -> np.ndarray:
        """4x4, from voxel indices to patient coordinates in mm (right, anterior, superior)."""
        return np.asarray(self.header.get_best_affine(), dtype=float)

    def digest(self) -> str:
        """SHA-256 of the content before compression."""
        return hashlib.sha256(self.start + self.voxels.tobytes(order="F")).hexdigest()

    def with_header(self, header: nib.Nifti1Header) -> NiftiContent:
        """The same voxels and extensions below another header."""
        return NiftiContent(header.binaryblock + self.start[348:], self.voxels)

    def with_voxels(self, voxels: np.ndarray) -> NiftiContent:
        """The voxels ``voxels``, stored without rescaling; the header says their type and shape."""
        header = self.header.copy()
        header.set_data_dtype(voxels.dtype.newbyteorder(header.endianness))
        header.set_data_shape(voxels.shape)
        header["scl_slope"], header["scl_inter"] = 1, 0
        header["cal_min"] = header["cal_max"] = 0
        return NiftiContent(header.binaryblock + self.start[348:], voxels.astype(header.get_data_dtype(), copy=False))

    def with_affine(self, affine: np.ndarray) -> NiftiContent:
        """The same voxels at another place: ``affine`` in sform and qform, for which its axes have to be orthogonal."""
        header = self.header.copy()
        code = int(header["sform_code"]) or int(header["qform_code"]) or 1
        header.set_sform(affine, code)
        header.set_qform(affine, code)
        return self.with_header(header)

    def with_grid_of(self, other: NiftiContent) -> NiftiContent:
        """The same voxels on the grid of ``other``, whose fields are taken as they are stored."""
        header = self.header.copy()
        for field in ("srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
                      "qoffset_z", "sform_code", "qform_code"):  # fmt: skip
            header[field] = other.header[field]
        header["pixdim"][:4] = other.header["pixdim"][:4]
        header["xyzt_units"] = other.header["xyzt_units"]
        return self.with_header(header)

    def with_axes(self, number: int) -> NiftiContent:
        """The same voxels without the axes after the first ``number``, each of which has one voxel."""
        header = self.header.copy()
        shape = self.voxels.shape[:number]
        pixdim = header["pixdim"].copy()
        header.set_data_shape(shape)
        header["pixdim"] = pixdim
        return NiftiContent(header.binaryblock + self.start[348:], self.voxels.reshape(shape, order="F"))


def read_content(path: Path) -> NiftiContent:
    """Read a whole NIfTI-1 file, compressed or not.

    Raises:
        ImageError: its header cannot be read, or says NIfTI-2, or the file is truncated.
    """
    header = read_nifti_header(path)
    if header.version != 1:
        raise ImageError(f"{path}: expected a NIfTI-1 image, found NIfTI-2. Convert it to NIfTI-1.")
    try:
        with open_nifti(path) as stream:
            data = stream.read(header.num_bytes)
    except (EOFError, OSError, zlib.error) as error:
        raise ImageError(f"{path}: truncated or damaged: {error}. Copy, download or convert it again.") from error
    if len(data) < header.num_bytes:
        raise ImageError(f"{path}: truncated; its header asks for {header.num_bytes} bytes, found {len(data)}.")
    return content_from_bytes(data)


def content_from_image(path: Path) -> NiftiContent:
    """Content of the NIfTI file that ITK makes of an image in another format.

    Raises:
        ImageError: ITK cannot read it.
    """
    image = attempt(lambda: SimpleITK.ReadImage(str(path)), Path(path))
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "image.nii"
        SimpleITK.WriteImage(image, str(plain))
        return read_content(plain)


def content_from_bytes(data: bytes) -> NiftiContent:
    """Content of a NIfTI-1 file that is already in memory, decompressed."""
    header = nib.Nifti1Header(data[:348], check=False)
    offset, shape = int(header.get_data_offset()), tuple(int(n) for n in header.get_data_shape())
    return NiftiContent(data[:offset], _voxels(data[offset:], header.get_data_dtype(), shape))


def write_content(content: NiftiContent, path: Path, *, compressed: bool | None = None) -> str:
    """Write a NIfTI file that appears whole or not at all; returns the SHA-256 of the file.

    The same content gives the same bytes.

    Args:
        content: to write.
        path: of the file.
        compressed: by gzip; None for what its name says.

    Raises:
        OutputError: the file cannot be written, as on a full disk.
    """
    data = content.start + content.voxels.tobytes(order="F")
    if path.name.lower().endswith(".gz") if compressed is None else compressed:
        data = gzip.compress(data, _LEVEL, mtime=0)
    write_file(path, lambda stream: stream.write(data))
    return hashlib.sha256(data).hexdigest()


def _voxels(data: bytes, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    number = int(np.prod(shape))
    return np.frombuffer(data, dtype, number).reshape(tuple(shape), order="F")
