"""A series read into a volume in HU on a grid with right angles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK

from nnunet_3dct.dicom.pixels import PixelReader
from nnunet_3dct.dicom.regrid import Grid, on_a_grid
from nnunet_3dct.dicom.series import Series
from nnunet_3dct.dicom.slices import Slice
from nnunet_3dct.dicom.stack import SAME_PLACE, Stack, arrange
from nnunet_3dct.errors import ImageError, listing


@dataclass(frozen=True)
class DicomVolume:
    """Image of a series.

    Attributes:
        image: HU (MR and PET: in their own units), int16 where all values are whole, else float32.
        repairs: what was changed, one text each; empty for a sound series.
        problems: what is worth knowing and changed nothing.
        stack: the slices as they lie in the patient.
        slices: that the image was made of, one a plane of ``stack``.
    """

    image: SimpleITK.Image
    repairs: list[str]
    problems: list[str]
    stack: Stack
    slices: tuple[Slice, ...]

    @property
    def on_source_grid(self) -> bool:
        """Whether every voxel is a pixel of a slice, so that masks of the image are masks of the slices."""
        return self.stack.is_even and not self.stack.is_shifted


def read_series(series: Series, case: str | None = None) -> DicomVolume:
    """Read the image of a series.

    The third axis of the image is the normal of the slices, and slices are sorted along it, as ITK does it. Values are
    rescaled by the slope and intercept of each slice. What is not on a grid is brought onto one, see
    :mod:`nnunet_3dct.dicom.regrid`; each such repair is named.

    Args:
        series: of images, from :func:`~nnunet_3dct.dicom.series.find_series`.
        case: name for messages; that of the series by default.

    Raises:
        ImageError: the slices are of two patients or sizes, a slice is missing or damaged, different slices lie at one
            position, or slices do not say where they lie; instance numbers name them.
    """
    case = case or series.name
    stack = arrange(series, case)
    array, used, repairs = _read(stack, case)
    grid = on_a_grid(array, stack)
    problems = [*stack.problems, *_problems(series, used)]
    return DicomVolume(_image(grid, stack), [*repairs, *grid.repairs], problems, stack, used)


def _read(stack: Stack, case: str) -> tuple[np.ndarray, tuple[Slice, ...], list[str]]:
    """Voxels (Z, Y, X), the slice taken at each position, and what was dropped."""
    reader = PixelReader(case)
    array: np.ndarray | None = None
    dropped: list[str] = []
    different: list[tuple[Slice, ...]] = []
    for number, plane in enumerate(stack.planes):
        values = reader.read(plane[0])
        if array is None:
            array = np.empty((len(stack.planes), *values.shape), values.dtype)
        if values.dtype != array.dtype and array.dtype == np.int16:
            array = array.astype(np.float32)
        array[number] = values
        for other in plane[1:]:
            if _beside(plane[0], other) or not np.array_equal(values, reader.read(other)):
                different.append(plane)
                break
            dropped.append(other.number)
    if different:
        raise _different(different, len(stack.planes), case)
    assert array is not None  # a series has a slice
    repairs = [f"{len(dropped)} double slices left out (instances {listing(dropped)})"] if dropped else []
    return array, tuple(plane[0] for plane in stack.planes), repairs


def _beside(first: Slice, second: Slice) -> bool:
    return bool(np.linalg.norm(np.subtract(first.position or (), second.position or ())) > 10 * SAME_PLACE)


def _different(planes: Sequence[Sequence[Slice]], positions: int, case: str) -> ImageError:
    found = listing([" and ".join(item.number for item in plane) for plane in planes], 5)
    counts = {len(plane) for plane in planes}
    if len(planes) == positions and len(counts) == 1:
        number = counts.pop()
        return ImageError(
            f"{case}: expected one image at each position, found {number} different ones at each of {positions} "
            f"positions (instances {found}), as in a series of {number} phases or echoes. Export each of them as a "
            "series of its own."
        )
    return ImageError(
        f"{case}: expected one image at each position, found different ones at {len(planes)} of {positions} positions "
        f"(instances {found}). Remove those that do not belong to the series."
    )


def _problems(series: Series, used: Sequence[Slice]) -> list[str]:
    found = []
    if series.modality == "CT" and any(item.rescale is None for item in used):
        found.append("no slope and intercept in the tags of a CT: the values are those stored, and may be no HU")
    if series.unreadable:
        found.append(
            f"{len(series.unreadable)} files beside its slices cannot be read ({listing(series.unreadable, 3)}): "
            "slices may be missing at its ends"
        )
    return found


def _image(grid: Grid, stack: Stack) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(grid.array)
    image.SetSpacing([float(value) for value in grid.spacing])
    image.SetOrigin([float(value) for value in grid.origin])
    image.SetDirection(stack.axes.ravel().tolist())
    return image
