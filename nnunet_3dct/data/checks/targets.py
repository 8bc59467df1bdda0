"""Structures that training cannot see: empty labels, labels of no case, what vanishes or outgrows the patch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from nnunet_3dct.data.checks.cases import CheckedCase, CheckedCases
from nnunet_3dct.data.checks.findings import Finding, count, shown
from nnunet_3dct.data.checks.measured import Measured, Structure
from nnunet_3dct.data.checks.plans import Configuration
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.label_values import read_whole_labels

SUBJECT = "structures"
DOUBTFUL = 1.6  # planned voxels along an axis; a structure that spans more keeps some
DOUBTFUL_VOLUME = 6.0  # planned voxels in all


def check_structures(cases: CheckedCases) -> Iterator[Finding]:
    """Label volumes without any structure, and structures that no training case has."""
    empty = [case.case for case, m in cases.measured() if m.structures is not None and not _foreground(m, cases)]
    if empty:
        yield Finding(
            SUBJECT,
            "warning",
            f"empty label in {count(len(empty), 'case')}: {shown(empty)}: no voxel of {_names(cases)}. Where a case "
            "really "
            "has "
            "none, its class rests on nothing; else the mask is lost or belongs to another grid.",
            tuple(empty),
        )
    labelled = [m.structures for _, m in cases.measured(training=True) if m.structures is not None]
    for label, name in cases.structures.items():
        with_it = sum(label in structures for structures in labelled)
        if labelled and with_it == 0:
            yield Finding(
                SUBJECT,
                "warning",
                f"{name} (label {label} of dataset.json) is in no training case, so it cannot be learned. Correct the "
                "masks, or "
                "take the label out of dataset.json.",
            )
    without = [
        case.case
        for case, m in cases.measured(training=True)
        if m.structures and _foreground(m, cases) and not any(label in m.structures for label in cases.target)
    ]
    if without:
        yield Finding(
            SUBJECT,
            "warning",
            f"no voxel of the target, the labels that carry the class, in {count(len(without), 'training case')}: "
            f"{shown(without)}. "
            "They add nothing to the class loss. Complete the masks, or set their class to -1.",
            tuple(without),
        )


def check_planned_structures(cases: CheckedCases, configurations: Sequence[Configuration]) -> Iterator[Finding]:
    """Structures that are gone at the planned voxel size, and targets that do not fit the planned patch."""
    for configuration in configurations:
        yield from _vanishing(cases, configuration)
        yield from _too_large(cases, configuration)


def resampled_voxels(mask: np.ndarray, spacing: Sequence[float], target: Sequence[float]) -> int:
    """Voxels of a structure that nnU-Net's preprocessing leaves at another voxel size.

    Args:
        mask: ``(Z, Y, X)``.
        spacing: of its voxels in mm, (z, y, x).
        target: planned, of the same axes.
    """
    from nnunet_3dct.upstream import compute_new_shape, resample_data_or_seg_to_shape

    shape = compute_new_shape(mask.shape, spacing, target)
    resampled = resample_data_or_seg_to_shape(
        mask[None].astype(np.uint8), shape, spacing, target, is_seg=True, order=1, order_z=0
    )
    return int(np.count_nonzero(resampled))


def _vanishing(cases: CheckedCases, configuration: Configuration) -> Iterator[Finding]:
    gone: dict[str, list[str]] = {}
    for case, measured in cases.measured(training=True):
        for label, structure in (measured.structures or {}).items():
            if label in cases.structures and _vanishes(case, label, structure, configuration, cases):
                gone.setdefault(cases.structures[label], []).append(case.case)
    for name, names in gone.items():
        size = " x ".join(f"{value:.3g}" for value in configuration.spacing)
        yield Finding(
            "plan",
            "warning",
            f"{name} vanishes at the planned voxel size of {configuration.title} ({size} mm) in "
            f"{count(len(names), 'case')}: "
            f"{shown(names)}. No patch can show it. Plan finer voxels (-overwrite_target_spacing), or leave the "
            "configuration "
            "out.",
            tuple(names),
        )


def _vanishes(
    case: CheckedCase, label: int, structure: Structure, configuration: Configuration, cases: CheckedCases
) -> bool:
    spacing, target = _spacings(case, configuration)
    spanned = [n * ours / theirs for n, ours, theirs in zip(structure.size, spacing, target, strict=True)]
    volume = structure.voxels * math.prod(spacing) / math.prod(target)
    resampled = [n for n, ours, theirs in zip(spanned, spacing, target, strict=True) if theirs > 1.01 * ours]
    if not resampled or (min(resampled) > DOUBTFUL and volume > DOUBTFUL_VOLUME):
        return False
    if case.files.label is None:
        return False
    try:
        values, _ = read_whole_labels(case.files.label, [0, *cases.structures, label], case.case, reader=cases.reader)
    except ImageError:  # it holds the ignore label, or is told elsewhere
        return False
    return resampled_voxels(values.reshape(values.shape[-3:]) == label, spacing, target) == 0


def _too_large(cases: CheckedCases, configuration: Configuration) -> Iterator[Finding]:
    patch = configuration.patch_of_image_axes()
    found: list[tuple[str, list[float]]] = []
    for case, measured in cases.measured(training=True):
        boxes = [s for label, s in (measured.structures or {}).items() if label in cases.target]
        if not boxes:
            continue
        size = [max(b.last[a] for b in boxes) + 1 - min(b.first[a] for b in boxes) for a in range(3)]
        planned = [n * o / t for n, o, t in zip(size, *_spacings(case, configuration), strict=True)]
        flat = len(configuration.patch) == 2
        if any(n > p for n, p in zip(planned, patch, strict=True) if not (flat and p == 1)):
            found.append((case.case, planned))
    if found:
        names = [name for name, _ in found]
        largest = " x ".join(f"{value:.0f}" for value in found[0][1])
        yield Finding(
            "plan",
            "warning",
            f"the target does not fit the patch of {configuration.title} ({' x '.join(map(str, patch))} voxels z, y, "
            "x) in "
            f"{count(len(names), 'case')}: {shown(names)}; {largest} voxels in {names[0]}. A patch then shows a part "
            "of what "
            "carries the "
            "class. Plan a larger patch (-gpu_memory_target) or larger voxels, choose the lesion alone as target "
            "(NNUNETV2_MT_TARGET_LABELS), or take a head that is fitted on whole cases.",
            tuple(names),
        )


def _spacings(case: CheckedCase, configuration: Configuration) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Voxel size of a case and the planned one, both along (z, y, x)."""
    assert case.check.grid is not None  # of a measured case
    spacing = tuple(case.check.grid.spacing[::-1])
    return spacing, configuration.spacing_of_image_axes(spacing)


def _foreground(measured: Measured, cases: CheckedCases) -> bool:
    return any(label in cases.structures for label in measured.structures or {})


def _names(cases: CheckedCases) -> str:
    return ", ".join(cases.structures.values())
