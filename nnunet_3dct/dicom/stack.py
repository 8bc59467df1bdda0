"""Slices put in order: one patient, one size, every position once and none missing, or an error that names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nnunet_3dct.dicom.series import Series
from nnunet_3dct.dicom.slices import Slice, plane_axes
from nnunet_3dct.errors import ImageError, listing

SAME_PLACE = 0.01  # mm
_UNEVEN, _UNEVEN_MM = 0.05, 0.051  # of the spacing, and mm: positions rounded to 0.1 mm
_SHIFTED = 0.1  # of a pixel, by which slices lie beside each other
_GAP = 1.5  # of the usual spacing: more is a gap
_DEFAULT_THICKNESS = 1.0


@dataclass(frozen=True)
class Stack:
    """Slices in order along their normal.

    Attributes:
        planes: for each position all slices that lie there; more than one where slices are double.
        axes: 3 x 3, columns: direction along a row, along a column, and their normal.
        origin: centre of the first pixel of the first slice, in mm.
        pixel: spacing between columns and between rows, in mm.
        distances: of the planes from the first one along the normal, in mm, ascending.
        shifts: (n, 2) of the planes against the first one along a row and along a column, in mm.
        step: spacing between planes where they are even, in mm.
        problems: what is worth knowing and changes nothing.
    """

    planes: tuple[tuple[Slice, ...], ...]
    axes: np.ndarray
    origin: np.ndarray
    pixel: tuple[float, float]
    distances: np.ndarray
    shifts: np.ndarray
    step: float
    problems: list[str] = field(default_factory=list)

    @property
    def is_even(self) -> bool:
        """Whether the planes are evenly spaced, but for the rounding of their positions."""
        deviation = np.abs(self.distances - np.arange(len(self.distances)) * self.step).max()
        return bool(deviation <= max(_UNEVEN * self.step, min(_UNEVEN_MM, 0.2 * self.step)))

    @property
    def is_shifted(self) -> bool:
        """Whether slices lie beside each other in their plane, as those of a tilted gantry do."""
        return bool(np.abs(self.shifts).max() > _SHIFTED * min(self.pixel))

    @property
    def tilt(self) -> float | None:
        """Angle in degrees by which the stack is sheared; None where slices are shifted in another way."""
        if len(self.distances) < 2:
            return None
        slope = self.distances @ self.shifts / (self.distances @ self.distances)
        residual = np.abs(self.shifts - self.distances[:, None] * slope).max()
        return float(np.rad2deg(np.arctan(np.hypot(*slope)))) if residual <= _SHIFTED * min(self.pixel) * 2 else None


def arrange(series: Series, case: str) -> Stack:
    """Put the slices of a series in order.

    Args:
        series: of images.
        case: for messages.

    Raises:
        ImageError: positions are missing; the slices are of two patients, sizes or pixel spacings; a slice is missing
            between others. Instance numbers name the slices.
    """
    slices = series.slices
    _check_alike(slices, case)
    axes = plane_axes(slices[0].row or (), slices[0].column or ())
    positions = np.array([item.position for item in slices], float)
    distances = (positions - positions[0]) @ axes[:, 2]
    order = np.argsort(distances, kind="stable")
    planes: list[list[int]] = []
    for index in order:
        if planes and distances[index] - distances[planes[-1][0]] < SAME_PLACE:
            planes[-1].append(int(index))
        else:
            planes.append([int(index)])
    firsts = [plane[0] for plane in planes]
    grouped = tuple(tuple(slices[index] for index in plane) for plane in planes)
    steps = distances[firsts] - distances[firsts[0]]
    _check_gaps(steps, grouped, case)
    step, problems = _step(steps, slices[0])
    spacing = slices[0].spacing
    assert spacing is not None  # _check_alike
    return Stack(
        planes=grouped,
        axes=axes,
        origin=positions[firsts[0]],
        pixel=spacing,
        distances=steps,
        shifts=(positions[firsts] - positions[firsts[0]]) @ axes[:, :2],
        step=step,
        problems=problems,
    )


def _check_alike(slices: Sequence[Slice], case: str) -> None:
    """Everything but the position is the same in all slices."""
    needed: dict[str, Callable[[Slice], object]] = {
        "position": lambda item: item.position,
        "orientation": lambda item: None if item.column is None else item.row,
        "pixel spacing": lambda item: item.spacing,
    }
    for what, value in needed.items():
        without = [item for item in slices if value(item) is None]
        if without:
            raise ImageError(
                f"{case}: expected slices that say where they lie, found {len(without)} of {len(slices)} without "
                f"{what} (instances {_numbers(without)}). Export the series from the scanner or archive again."
            )
    _check_same(slices, lambda item: item.patient, lambda value: f"patient {value}", "slices of one patient", case)
    _check_same(slices, lambda item: item.size, lambda value: f"{value[0]} x {value[1]}", "slices of one size", case)
    _check_same(
        slices,
        lambda item: tuple(round(value, 3) for value in item.spacing or ()),
        lambda value: f"{value[0]:g} x {value[1]:g} mm",
        "slices of one pixel spacing",
        case,
    )


def _check_same(
    slices: Sequence[Slice],
    value: Callable[[Slice], Hashable],
    shown: Callable[..., str],
    expected: str,
    case: str,
) -> None:
    values = Counter(value(item) for item in slices)
    if len(values) > 1:
        found = [
            f"{shown(kind)} (instances {_numbers([item for item in slices if value(item) == kind])})"
            for kind, _ in values.most_common()
        ]
        raise ImageError(
            f"{case}: expected {expected}, found {listing(found, 4)}. Give each of them a folder and a "
            "SeriesInstanceUID of its own, or remove what does not belong here."
        )


def _check_gaps(steps: np.ndarray, planes: Sequence[Sequence[Slice]], case: str) -> None:
    """No slice is missing: no single gap among even slices, and none where instance numbers leave some out."""
    gaps = np.diff(steps)
    if len(gaps) < 2:
        return
    usual = float(np.median(gaps)) if len(gaps) > 3 else float(gaps.min())
    wide = gaps > _GAP * usual
    jumps = _jumps(planes)
    found = []
    for index in np.flatnonzero(wide).tolist():
        alone = not wide[max(index - 1, 0) : index].any() and not wide[index + 1 : index + 2].any()
        if alone or jumps[index] > 1:
            before, after = planes[index][0], planes[index + 1][0]
            number = max(round(float(gaps[index]) / usual) - 1, 1)
            found.append(
                f"{number} between instances {before.number} and {after.number} ({gaps[index]:.4g} mm apart, others "
                f"{usual:.4g} mm)"
            )
    if found:
        raise ImageError(
            f"{case}: expected a slice at every position, found some missing: {listing(found, 5)}. Export the series "
            "again, or leave the case out."
        )


def _jumps(planes: Sequence[Sequence[Slice]]) -> np.ndarray:
    """By how many numbers neighbours differ, in units of what is usual; ones where numbers are missing."""
    numbers = [plane[0].instance for plane in planes]
    if any(number is None for number in numbers):
        return np.ones(len(planes) - 1)
    differences = np.abs(np.diff(np.array(numbers, float)))
    usual = max(float(np.median(differences)), 1.0)
    return np.round(differences / usual)


def _step(steps: np.ndarray, first: Slice) -> tuple[float, list[str]]:
    if len(steps) > 1:
        return float(steps[-1]) / (len(steps) - 1), []
    if first.thickness is not None:
        return first.thickness, ["a single slice, whose thickness is taken for the spacing"]
    return _DEFAULT_THICKNESS, [f"a single slice without thickness; {_DEFAULT_THICKNESS:g} mm is assumed"]


def _numbers(slices: Sequence[Slice]) -> str:
    """Instance numbers for a message, runs written as 1-20."""
    known = sorted({item.instance for item in slices if item.instance is not None})
    runs: list[list[int]] = []
    for number in known:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    without = sum(item.instance is None for item in slices)
    return listing([*texts, *([f"{without} without number"] if without else [])])
