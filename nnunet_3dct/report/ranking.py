"""Cases that deserve a look first."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_3dct.report.cohort import Case, Cohort
from nnunet_3dct.report.formats import number, percent

SHOWN = 5


@dataclass(frozen=True)
class Ranking:
    """A list of cases, each with what put it there."""

    heading: str
    cases: list[tuple[Case, str]]


def rankings(cohort: Cohort) -> list[Ranking]:
    """Lowest and highest mean Dice (at most a half of the cases each), confident mistakes, cases marked for review."""
    by_dice = _by_dice(cohort)
    half = min(SHOWN, (len(by_dice) + 1) // 2)
    dice = [(case, f"mean Dice {number(case.mean_dice)}") for case in by_dice]
    wrong = [case for case in cohort.cases if case.result and case.result.correct is False]
    wrong.sort(key=lambda case: -((case.result and case.result.confidence) or 0))
    reviewed = [(case, _verdict(case, cohort)) for case in cohort.cases if case.result and case.result.review]
    found = [
        Ranking("Lowest Dice", dice[:half]),
        Ranking("Highest Dice", dice[::-1][: min(half, len(dice) - half)]),
        Ranking("Wrong class, most confident first", [(case, _verdict(case, cohort)) for case in wrong[:SHOWN]]),
        Ranking("Marked for review", reviewed),
    ]
    return [ranking for ranking in found if ranking.cases]


def choose_pages(cohort: Cohort) -> list[Case]:
    """Cases with a section of their own: all, or as many as were asked for, those with the lowest Dice first.

    Without references the least certain classes come first, without these the names.
    """
    limit = cohort.options.max_cases
    if limit is None or limit >= len(cohort.cases):
        return cohort.cases
    by_confidence = sorted(cohort.cases, key=lambda case: (case.result and case.result.confidence) or 0)
    chosen = _by_dice(cohort) or by_confidence
    rest = [case for case in cohort.cases if case not in chosen]
    return sorted([*chosen, *rest][:limit], key=lambda case: case.number)


def _by_dice(cohort: Cohort) -> list[Case]:
    return sorted((c for c in cohort.cases if c.mean_dice is not None), key=lambda case: case.mean_dice or 0)


def _verdict(case: Case, cohort: Cohort) -> str:
    """``subtype1 (83 %), reference subtype0``."""
    result, classes = case.result, cohort.classes
    if result is None or classes is None:
        return ""
    text = classes.names[result.predicted]
    if result.confidence is not None:
        text += f" ({percent(result.confidence)})"
    return text if result.truth is None else f"{text}, reference {classes.names[result.truth]}"
