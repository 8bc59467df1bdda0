"""Grids of volumes: read from headers, compared with one tolerance, voxel sizes checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.image_readers import Reader, reader_name, reads_with_nibabel
from nnunet_3dct.formats.nifti_header import NiftiHeader, read_nifti_header

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
SMALLEST_SPACING, LARGEST_SPACING = 0.01, 50.0  # mm
MOST_VOXELS = 2**31  # of a resampled image: 8 GiB a channel
Result = TypeVar("Result")
AGAIN = "Copy, download or convert it again"
_FLOAT_PIXELS = (
    SimpleITK.sitkFloat32,
    SimpleITK.sitkFloat64,
    SimpleITK.sitkVectorFloat32,
    SimpleITK.sitkVectorFloat64,
)


@dataclass(frozen=True)
class Geometry:
    """Grid of a volume in SimpleITK's order (x, y, z): ``size`` in voxels, ``spacing`` and ``origin`` in mm,
    ``direction`` as the cosines row by row (patient's left, posterior, superior); ``channels`` and ``floating``
    describe the voxels. A picture has two axes; a fourth axis counts as channels."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    channels: int
    floating: bool


def read_geometry(path: Path, *, reader: Reader | None = None) -> Geometry:
    """Grid of ``path`` from its header alone, as the reader sees it.

    Args:
        path: of an image or label volume.
        reader: that nnU-Net uses for it, by name or class; None for one that uses ITK.

    Raises:
        ImageError: the reader cannot read the header, for instance because its axes are sheared.
    """
    path = Path(path)
    if reads_with_nibabel(reader):
        return _nifti_geometry(path, read_nifti_header(path), reader_name(reader or ""))
    information = SimpleITK.ImageFileReader()
    information.SetFileName(str(path))
    attempt(information.ReadImageInformation, path)
    if reader is not None and reader_name(reader).startswith("SimpleITK") and information.GetNumberOfComponents() > 1:
        raise ImageError(
            f"{path}: expected one value a voxel, found {information.GetNumberOfComponents()} (colours or vectors), "
            "where nnU-Net's SimpleITKIO takes slices for channels. Write one file a channel."
        )
    return image_geometry(information)


def image_geometry(image: SimpleITK.Image | SimpleITK.ImageFileReader) -> Geometry:
    """Grid of an image in memory, or of a file whose header was read."""
    if isinstance(image, SimpleITK.Image):
        components = image.GetNumberOfComponentsPerPixel()
    else:
        components = image.GetNumberOfComponents()
    grid: Any = image
    size = grid.GetSize()
    axes = min(len(size), 3)
    direction = np.reshape(grid.GetDirection(), (len(size), len(size)))[:axes, :axes]
    return Geometry(
        size=size[:axes],
        spacing=grid.GetSpacing()[:axes],
        origin=grid.GetOrigin()[:axes],
        direction=tuple(direction.ravel().tolist()),
        channels=components * math.prod(size[3:]),  # as nnU-Net's SimpleITKIO takes a fourth axis
        floating=grid.GetPixelID() in _FLOAT_PIXELS,
    )


def geometry_differences(found: Geometry, expected: Geometry) -> list[str]:
    """What keeps two volumes from sharing a grid, one text each; empty when they agree.

    Tolerances: spacing 0.1 %, origin a tenth of the smallest voxel edge, direction cosines 0.001. They lie
    above the rounding of a NIfTI header, which keeps single precision. Every comparison of grids in this package,
    of channels, labels, predictions and references, is this one.
    """
    if found.size != expected.size:
        return [f"size (x, y, z) expected {expected.size}, found {found.size}"]
    comparisons = (
        ("spacing in mm", found.spacing, expected.spacing, 1e-3, 0.0),
        ("origin in mm", found.origin, expected.origin, 0.0, 0.1 * min(expected.spacing)),
        ("direction", found.direction, expected.direction, 0.0, 1e-3),
    )
    return [
        f"{name} expected {rounded(theirs)}, found {rounded(ours)}"
        for name, ours, theirs, rtol, atol in comparisons
        if not np.allclose(ours, theirs, rtol=rtol, atol=atol)
    ]


def check_spacing(grid: Geometry, name: str, path: Path | None = None) -> None:
    """Make sure that the voxel sizes are numbers that an image of a patient can have.

    Sizes from 0.01 to 50 mm pass; that of an axis with a single voxel may be larger, since nnU-Net's users write
    999 there. Pictures, whose voxel size nnU-Net does not read from the file, are not looked at.

    Args:
        grid: of the image.
        name: the case, for the message.
        path: its file, None for an image in memory. A NIfTI header is looked at as stored, since readers take 1 mm in
            place of 0 and NaN.

    Raises:
        ImageError: a size is 0, negative, undefined or implausible; names the unit in the header where that is why.
    """
    ending = "" if path is None else path.name.lower()
    if ending.endswith(PICTURES):
        return
    stored, unit, where = grid.spacing, "mm", ""
    if path is not None:
        where = f" in {path.name}"
        if ending.endswith(NIFTI):
            header = read_nifti_header(path)
            stored, unit = header.pixdim, header.unit
    if any(not math.isfinite(value) or value <= 0 for value in (*stored, *grid.spacing)):
        raise ImageError(
            f"{name}: expected voxel sizes above 0 mm, found {rounded(stored)}{where}, which readers take for 1 mm or "
            "turn around. Correct the header, or convert the image again."
        )
    if any(
        value < SMALLEST_SPACING or (value > LARGEST_SPACING and size > 1)
        for value, size in zip(grid.spacing, grid.size, strict=True)
    ):
        because = f", since its header says that lengths are in {unit}" if unit not in ("mm", "unknown") else ""
        raise ImageError(
            f"{name}: expected voxel sizes from {SMALLEST_SPACING:g} to {LARGEST_SPACING:g} mm, found "
            f"{rounded(grid.spacing)} mm (x, y, z){where}{because}. Correct the {'unit' if because else 'voxel size'} "
            "in the header, or convert the image again."
        )


def check_planned_size(
    shape: Sequence[int], spacing: Sequence[float], target_spacing: Sequence[float], case: str
) -> None:
    """Make sure that an image resampled to the planned voxel size can be held in memory at all.

    Args:
        shape: voxels along each axis.
        spacing: in mm, of the same axes.
        target_spacing: planned, in mm; one value less (a 2D configuration) leaves the first axis as it is.
        case: for the message.

    Raises:
        ImageError: it would have more than 2**31 voxels; names its size.
    """
    target = [*spacing[: len(spacing) - len(target_spacing)], *target_spacing]
    planned = tuple(round(n * ours / theirs) for n, ours, theirs in zip(shape, spacing, target, strict=True))
    if math.prod(planned) > MOST_VOXELS:
        raise ImageError(
            f"{case}: {tuple(shape)} voxels of {rounded(spacing)} mm would be resampled to {planned} voxels of "
            f"{rounded(target)} mm, {math.prod(planned) * 4 / 2**30:,.0f} GiB a channel. Check the voxel size in its "
            "header, and crop the image if that is right."
        )


def attempt(read: Callable[[], Result], path: Path) -> Result:
    """Result of ``read``, which reads ``path`` by ITK.

    Raises:
        ImageError: ITK could not; says why.
    """
    try:
        return read()
    except RuntimeError as error:
        if path.name.lower().endswith(NIFTI):
            _explain_nifti(path, error)
        reason = str(error).strip().splitlines()[-1]
        raise ImageError(f"{path}: cannot be read as an image: {reason}. {AGAIN}.") from error


def axes_code(direction: Sequence[float]) -> str:
    """Towards which side of the patient the axes x, y, z run, such as ``LPS``; oblique axes count for the nearest.

    Args:
        direction: nine cosines row by row, as in :class:`Geometry`.

    Examples:
        >>> axes_code((1, 0, 0, 0, 1, 0, 0, 0, 1)), axes_code((0, 0, -1, 1, 0, 0, 0, -1, 0))
        ('LPS', 'PIR')
    """
    cosines = np.reshape(direction, (3, 3))
    sides = (("R", "L"), ("A", "P"), ("I", "S"))
    code: list[str] = []
    left = [0, 1, 2]
    for axis in range(3):
        row = max(left, key=lambda row: abs(float(cosines[row, axis])))
        left.remove(row)
        code.append(sides[row][int(cosines[row, axis] >= 0)])
    return "".join(code)


def rounded(values: Sequence[float]) -> str:
    """Numbers with six digits, for a message."""
    return "(" + ", ".join(f"{value + 0.0:.6g}" for value in values) + ")"


def _nifti_geometry(path: Path, header: NiftiHeader, reader: str) -> Geometry:
    if len(header.shape) != 3:
        raise ImageError(
            f"{path}: expected a volume of three axes, since {reader} reads no other, found shape {header.shape}. "
            "Split it into volumes of three axes."
        )
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ header.affine  # from nibabel's axes to ITK's
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    spacing = [value if math.isfinite(value) and value > 0 else 1.0 for value in header.pixdim]  # as nibabel does
    return Geometry(
        size=header.shape,
        spacing=tuple(spacing),
        origin=tuple(affine[:3, 3].tolist()),
        direction=tuple(direction.ravel().tolist()),
        channels=1,
        floating=header.dtype.kind == "f",
    )


def _explain_nifti(path: Path, error: RuntimeError) -> None:
    """Raise ImageError where it is known why ITK does not read a sound NIfTI file."""
    by_nibabel = (
        'or have nibabel read all of the dataset: "overwrite_image_reader_writer": "NibabelIO" in dataset.json before '
        "planning."
    )
    header = read_nifti_header(path)
    if "orthonormal" in str(error).lower():
        angles = ", ".join(f"{angle:.4g}" for angle in header.axis_angles)
        raise ImageError(
            f"{path}: its axes are sheared: they meet at {angles} degrees where ITK, and with it nnU-Net's "
            "SimpleITKIO, takes only right angles (orthonormal direction cosines). A tilted CT gantry and rounded "
            f"headers leave such files. Resample the image and its label to a grid with right angles, {by_nibabel}"
        ) from error
    if header.version == 2:
        raise ImageError(
            f"{path}: a NIfTI-2 image, which ITK, and with it nnU-Net's SimpleITKIO, does not read. Convert it to "
            f"NIfTI-1, {by_nibabel}"
        ) from error
