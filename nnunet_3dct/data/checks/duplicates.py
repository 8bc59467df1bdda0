"""The same image under two names, and one patient on both sides of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations, product

import numpy as np

from nnunet_3dct.data.checks.cases import PARTS, CheckedCase, CheckedCases
from nnunet_3dct.data.checks.findings import Finding, count, shown
from nnunet_3dct.data.checks.signature import GRID

SUBJECT = "leaks"
SAME = 0.66  # correlation of signatures
SAME_TURNED = 0.8  # where the headers do not say so: of 47 further ways one fits by chance more easily
MAYBE = 0.4  # on half their grid
COARSE = GRID // 2
Pair = tuple[CheckedCase, CheckedCase, str]  # and how the second is stored against the first


def check_duplicates(cases: CheckedCases) -> Iterator[Finding]:
    """Images of equal content under different names, whatever their voxel size, storage or intensity offset."""
    measured = list(cases.measured())
    pairs = equal_pairs([m.signature for _, m in measured])
    across: list[Pair] = []
    within: list[Pair] = []
    for first, second, how in pairs:
        one, other = measured[first][0], measured[second][0]
        if one.case == other.case:
            continue  # in two folders under one name, which is told already
        (within if one.part == other.part else across).append((one, other, how))
    if across:
        yield Finding(
            SUBJECT,
            "problem",
            f"the same image in two parts of the dataset under different names, {count(len(across), 'pair')}: "
            f"{_listed(across, True)}. A "
            "case "
            "that was trained on cannot test: keep each in one part.",
            _names(across),
        )
    if within:
        yield Finding(
            SUBJECT,
            "warning",
            f"the same image twice under different names, {count(len(within), 'pair')}: {_listed(within, False)}. A "
            "case counts "
            "twice, and "
            "folds that train on the one and validate on the other are no test. Keep one, or state one patient for "
            "both "
            "(column Patient of classification.csv) and write the splits by nnUNet3DCT_splits.",
            _names(within),
        )


def check_patients(cases: CheckedCases, patients: Mapping[str, str]) -> Iterator[Finding]:
    """Patients with cases in training and in validation or test.

    Args:
        cases: of the dataset.
        patients: case -> patient, from the class labels. No patient is named in a finding, only their cases.
    """
    by_patient: dict[str, list[CheckedCase]] = {}
    for case in cases.all:
        if case.case in patients:
            by_patient.setdefault(patients[case.case], []).append(case)
    split = [group for group in by_patient.values() if len({case.part for case in group}) > 1]
    if split:
        texts = [
            ", ".join(f"{case.case} ({case.part})" for case in sorted(group, key=lambda c: PARTS.index(c.part)))
            for group in split
        ]
        yield Finding(
            SUBJECT,
            "problem",
            f"one patient in two parts of the dataset, {count(len(split), 'patient')}: {'; '.join(texts[:6])}"
            f"{f' and {len(texts) - 6} more' if len(texts) > 6 else ''}. What was learned of a patient is no news in "
            "another case of the same: move all cases of a patient to one part.",
            tuple(case.case for group in split for case in group),
        )


def equal_pairs(signatures: Sequence[np.ndarray]) -> list[tuple[int, int, str]]:
    """Pairs of signatures that are the same image, each with how the second is stored against the first.

    Besides the axes as the headers say, every mirroring and exchange of axes is tried, since a header may be wrong.
    """
    if len(signatures) < 2:
        return []
    fine = np.stack([s.reshape(GRID, GRID, GRID) for s in signatures])
    coarse = fine.reshape(len(fine), COARSE, 2, COARSE, 2, COARSE, 2).mean(axis=(2, 4, 6))
    rows = _unit(coarse.reshape(len(fine), -1))
    pairs: dict[tuple[int, int], tuple[float, str]] = {}
    for order, signs in _turns():
        as_stored = order == (0, 1, 2) and signs == (1, 1, 1)
        how, enough = ("", SAME) if as_stored else ("mirrored or turned", SAME_TURNED)
        turned = _unit(_turn(coarse, order, signs).reshape(len(fine), -1))
        for first, second in np.argwhere(np.triu(rows @ turned.T, 1) > MAYBE):
            whole = _unit(_turn(fine[second : second + 1], order, signs).reshape(1, -1))[0]
            value = float(_unit(fine[first].reshape(1, -1))[0] @ whole)
            key = int(first), int(second)
            if value > enough and value > pairs.get(key, (0.0, ""))[0] + 1e-4:
                pairs[key] = value, how
    return [(first, second, how) for (first, second), (_, how) in sorted(pairs.items())]


def _turns() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All 48 ways to lay a box, that of the headers first."""
    return [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def _turn(stack: np.ndarray, order: Sequence[int], signs: Sequence[int]) -> np.ndarray:
    turned = stack.transpose(0, *(1 + axis for axis in order))
    flips: tuple[slice, ...] = (slice(None), *(slice(None, None, sign) for sign in signs))
    return turned[flips]


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of the length 1; constant ones stay 0."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = rows / np.where(lengths > 0, lengths, 1)
    return unit


def _listed(pairs: Sequence[Pair], with_parts: bool) -> str:
    texts = []
    for one, other, how in pairs:
        first, second = (f"{c.case} ({c.part})" if with_parts else c.case for c in (one, other))
        texts.append(f"{first} and {second}{f' ({how})' if how else ''}")
    return shown(texts)


def _names(pairs: Sequence[Pair]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(case.case for pair in pairs for case in pair[:2]))
