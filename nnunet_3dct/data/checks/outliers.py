"""Cases unlike the others in voxel size, extent, intensity or size of their structures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nnunet_3dct.data.checks.cases import CheckedCase, CheckedCases
from nnunet_3dct.data.checks.findings import Finding
from nnunet_3dct.data.checks.measured import Measured

SUBJECT = "outliers"
FEWEST = 5  # cases that can say what is usual
FAR = 5.0  # robust standard deviations from the median
AXES = "xyz"


def check_outliers(cases: CheckedCases) -> Iterator[Finding]:
    """Name cases far from the median: further than 5 robust standard deviations and than a factor that matters."""
    grids = [(case, found, case.check.grid) for case, found in cases.measured() if case.check.grid is not None]
    measured = [(case, found) for case, found, _ in grids]
    if len(measured) < FEWEST:
        return
    spacing = np.array([grid.spacing for *_, grid in grids])
    extent = spacing * np.array([grid.size for *_, grid in grids])
    yield from _by_factor("voxel size", "mm", measured, spacing, 1.8)
    yield from _by_factor("extent of the image", "mm", measured, extent, 2.2)
    yield from _intensities(measured, "all voxels", [m.intensities.mean for _, m in measured], cases.is_ct)
    inside = [math.nan if m.inside is None else m.inside for _, m in measured]
    yield from _intensities(measured, "the labelled voxels", inside, cases.is_ct)
    yield from _volumes(measured, cases)


def far_from_others(values: np.ndarray, floor: float) -> np.ndarray:
    """Which of ``values`` ``(N,)`` lie far from their median; NaN does not.

    Args:
        values: numbers to be compared.
        floor: a distance that is never far.

    Examples:
        >>> import numpy as np
        >>> far_from_others(np.array([1.0, 1.1, 0.9, 1.0, 9.0]), 0.5)
        array([False, False, False, False,  True])
    """
    if np.isfinite(values).sum() < FEWEST:
        return np.zeros(len(values), bool)
    middle = np.nanmedian(values)
    spread = 1.4826 * np.nanmedian(np.abs(values - middle))
    with np.errstate(invalid="ignore"):
        far: np.ndarray = np.abs(values - middle) > max(FAR * spread, floor)
    return far


def _by_factor(
    what: str, unit: str, measured: Sequence[tuple[CheckedCase, Measured]], values: np.ndarray, factor: float
) -> Iterator[Finding]:
    """Cases whose values (N, 3) differ by more than ``factor`` from the median of an axis."""
    far = np.stack([far_from_others(np.log(values[:, axis]), math.log(factor)) for axis in range(3)], axis=1)
    found = np.flatnonzero(far.any(axis=1)).tolist()
    if not found:
        return
    middle = np.median(values, axis=0)
    yield _finding(
        measured,
        {n: f"{' x '.join(f'{value:.4g}' for value in values[n])} {unit}" for n in found},
        f"{what} (x, y, z) far from that of the other cases, {' x '.join(f'{value:.4g}' for value in middle)} {unit}",
        "Check unit and header, or whether the case belongs here.",
    )


def _finding(
    measured: Sequence[tuple[CheckedCase, Measured]], values: Mapping[int, str], what: str, remedy: str
) -> Finding:
    """One text for the cases at the numbers in ``values``, each with its value."""
    cases = [measured[n][0].case for n in values]
    texts = [f"{case} ({value})" for case, value in zip(cases, values.values(), strict=True)]
    return Finding(
        SUBJECT, "warning", f"{what} in the middle: {_listed(texts[:6], len(cases))}. {remedy}", tuple(cases)
    )


def _intensities(
    measured: Sequence[tuple[CheckedCase, Measured]], where: str, values: Sequence[float], is_ct: bool
) -> Iterator[Finding]:
    spreads = [m.intensities.sd for _, m in measured]
    floor = 150.0 if is_ct else 1.5 * float(np.median(spreads))
    array = np.array(values)
    found = np.flatnonzero(far_from_others(array, floor)).tolist()
    if found:
        unit = " HU" if is_ct else ""
        yield _finding(
            measured,
            {n: f"{array[n]:.5g}{unit}" for n in found},
            f"mean intensity of {where} far from that of the other cases, {np.nanmedian(array):.5g}{unit}",
            "Check rescaling, contrast phase and label.",
        )


def _volumes(measured: Sequence[tuple[CheckedCase, Measured]], cases: CheckedCases) -> Iterator[Finding]:
    for label, name in cases.structures.items():
        volumes = np.array([_volume(case, m, label) for case, m in measured])
        with np.errstate(divide="ignore"):
            far = far_from_others(np.log(volumes), math.log(8))
        found = np.flatnonzero(far).tolist()
        if found:
            yield _finding(
                measured,
                {n: f"{volumes[n]:.3g} ml" for n in found},
                f"volume of {name} far from that in the other cases, {np.nanmedian(volumes):.3g} ml",
                "Look at the label.",
            )


def _volume(case: CheckedCase, measured: Measured, label: int) -> float:
    """In ml; NaN where the structure is not there."""
    structure = (measured.structures or {}).get(label)
    if structure is None or case.check.grid is None:
        return math.nan
    return structure.voxels * math.prod(case.check.grid.spacing) / 1000


def _listed(texts: Sequence[str], number: int) -> str:
    return ", ".join(texts) + (f" and {number - len(texts)} more" if number > len(texts) else "")
