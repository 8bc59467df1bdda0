"""What is measured of a case for the comparison with the others: small enough to be sent between processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from nnunet_3dct.data.checks.signature import signature
from nnunet_3dct.formats.geometry import NIFTI, Geometry, axes_code, geometry_differences
from nnunet_3dct.formats.nifti_header import NiftiHeader, read_nifti_header

MOST_SAMPLES = 200_000  # voxels that percentiles are taken of


@dataclass(frozen=True)
class Intensities:
    """Intensities of the first channel, in its own unit.

    Attributes:
        minimum, maximum, mean, sd: of all voxels.
        p01, p50, p99: percentiles of a regular sample.
        at_minimum, at_maximum: share of the voxels with just that value.
        below_maximum: share of the voxels in the fiftieth of the range below the maximum, without it.
        whole: whether all sampled values are whole numbers.
        blank_slices: how many slices at the end of the file hold one and the same value.
        slices: how many slices there are.
    """

    minimum: float
    maximum: float
    mean: float
    sd: float
    p01: float
    p50: float
    p99: float
    at_minimum: float
    at_maximum: float
    below_maximum: float
    whole: bool
    blank_slices: int
    slices: int


@dataclass(frozen=True)
class Structure:
    """Voxels of a label: how many, and the box around them, ``first`` and ``last`` index (z, y, x)."""

    voxels: int
    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along each axis of the box."""
        return tuple(last - first + 1 for first, last in zip(self.first, self.last, strict=True))


@dataclass(frozen=True)
class Measured:
    """What is known of a volume with three axes.

    Attributes:
        axes: towards which side of the patient its axes x, y, z run, such as ``LPS``.
        right_handed: whether the axes are a rotation of the patient's; else they are mirrored.
        forms: in what the two matrices of its NIfTI header differ; empty where they agree or there is one.
        forms_turned: whether they differ even in the sides that the axes run to.
        intensities: of its first channel.
        signature: of its content, see :mod:`nnunet_3dct.data.checks.signature`.
        structures: label -> its voxels; None without a label volume that can be read.
        inside: mean intensity of all labelled voxels, None without any.
    """

    axes: str
    right_handed: bool
    forms: tuple[str, ...]
    forms_turned: bool
    intensities: Intensities
    signature: np.ndarray = field(repr=False)
    structures: dict[int, Structure] | None = None
    inside: float | None = None


def measure(image: np.ndarray, grid: Geometry, file: Path, label: np.ndarray | None) -> Measured:
    """Measure a case.

    Args:
        image: first channel ``(Z, Y, X)``.
        grid: of its file.
        file: of its first channel; the header is read.
        label: whole numbers ``(Z, Y, X)`` on the same grid, None without.
    """
    direction = np.reshape(grid.direction, (3, 3))
    forms, turned = _forms(file)
    structures, inside = None, None
    if label is not None and label.shape == image.shape:
        structures = find_structures(label)
        if structures:
            region = tuple(
                slice(
                    min(s.first[axis] for s in structures.values()), 1 + max(s.last[axis] for s in structures.values())
                )
                for axis in range(3)
            )
            inside = float(image[region][label[region] != 0].mean(dtype=np.float64))
    return Measured(
        axes_code(grid.direction),
        bool(np.linalg.det(direction) > 0),
        forms,
        turned,
        _intensities(image),
        signature(image, grid.direction),
        structures,
        inside,
    )


def find_structures(label: np.ndarray) -> dict[int, Structure]:
    """Voxels and box of every label above 0 of a volume of whole numbers."""
    small = label.astype(np.uint8 if label.min() >= 0 and label.max() < 256 else np.int32)
    counts = np.bincount(small.ravel())
    return {
        number: Structure(int(counts[number]), tuple(s.start for s in box), tuple(s.stop - 1 for s in box))
        for number, box in enumerate(ndimage.find_objects(small), start=1)
        if box is not None
    }


def _intensities(image: np.ndarray) -> Intensities:
    low, high = float(image.min()), float(image.max())
    flat = image.reshape(-1)
    # a step that shares no factor with usual sizes, so that the sample runs through all columns
    sample = flat[:: max(1, image.size // MOST_SAMPLES) | 1].astype(np.float64)
    p01, p50, p99 = np.percentile(sample, (1, 50, 99))
    at_high = np.count_nonzero(image == high)
    near_high = np.count_nonzero(image >= high - 0.02 * (high - low)) - at_high
    return Intensities(
        low,
        high,
        float(image.mean(dtype=np.float64)),
        float(sample.std()),
        float(p01),
        float(p50),
        float(p99),
        np.count_nonzero(image == low) / image.size,
        at_high / image.size,
        near_high / image.size,
        bool(np.array_equal(sample, np.rint(sample))),
        _blank_slices(image),
        len(image),
    )


def _blank_slices(image: np.ndarray) -> int:
    """Slices at the end of the file that hold one value, the same in all of them."""
    value = image[-1].flat[0]
    number = 0
    for plane in image[::-1]:
        if plane.flat[0] != value or (plane != value).any():
            break
        number += 1
    return number


def _forms(file: Path) -> tuple[tuple[str, ...], bool]:
    if not file.name.lower().endswith(NIFTI):
        return (), False
    header = read_nifti_header(file)
    if header.qform is None or header.sform is None or len(header.shape) < 3:
        return (), False
    qform, sform = (_grid(header, form) for form in (header.qform, header.sform))
    try:
        differences = geometry_differences(sform, qform)
    except ValueError:  # not finite
        return (), False
    return tuple(differences), axes_code(sform.direction) != axes_code(qform.direction)


def _grid(header: NiftiHeader, form: Sequence[Sequence[float]] | np.ndarray) -> Geometry:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(form, float)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    return Geometry(
        header.shape[:3], tuple(lengths.tolist()), tuple(affine[:3, 3].tolist()), tuple(direction.ravel().tolist()), 1,
        False,
    )  # fmt: skip
