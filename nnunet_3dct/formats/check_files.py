"""What ``nnUNet3DCT_check --json`` writes: the findings of a dataset's check, and what was measured of its cases."""

from __future__ import annotations

from typing_extensions import TypedDict


class FindingEntry(TypedDict):
    """One finding; ``cases`` is empty where it is about the dataset as a whole."""

    subject: str
    text: str
    cases: list[str]


class CaseEntry(TypedDict):
    """One case: size and spacing along x, y, z; what could not be read is null."""

    part: str
    size: list[int] | None
    spacing_mm: list[float] | None
    axes: str | None
    intensity_range: list[float] | None
    intensity_mean: float | None
    structures_ml: dict[str, float] | None


class CheckFile(TypedDict):
    """All of it; ``ok`` says whether there is no problem."""

    version: str
    dataset: str
    ok: bool
    num_training: int
    num_held_out: int
    problems: list[FindingEntry]
    warnings: list[FindingEntry]
    notes: list[FindingEntry]
    read: list[str]
    cases: dict[str, CaseEntry]
    seconds: float
