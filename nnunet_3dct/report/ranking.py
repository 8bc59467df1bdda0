"""Cases that deserve a look first."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_3dct.report.case_result import CaseResult, by_dice
from nnunet_3dct.report.cohort import Cohort
from nnunet_3dct.report.wording import number, percent

SHOWN = 5


@dataclass(frozen=True)
class Ranking:
    """A list of cases, each with what put it there."""

    heading: str
    cases: list[tuple[CaseResult, str]]


def rankings(cohort: Cohort) -> list[Ranking]:
    """Lowest and highest mean Dice (at most a half of the cases each), confident mistakes, cases marked for review."""
    ordered = by_dice(cohort.cases)
    half = min(SHOWN, (len(ordered) + 1) // 2)
    dice = [(case, f"mean Dice {number(case.mean_dice)}") for case in ordered]
    wrong = [case for case in cohort.cases if case.classified and case.classified.correct is False]
    wrong.sort(key=lambda case: -case.confidence)
    reviewed = [(case, _verdict(case, cohort)) for case in cohort.cases if case.classified and case.classified.review]
    lists = [
        Ranking("Lowest Dice", dice[:half]),
        Ranking("Highest Dice", dice[::-1][: min(half, len(dice) - half)]),
        Ranking("Wrong class, most confident first", [(case, _verdict(case, cohort)) for case in wrong[:SHOWN]]),
        Ranking("Marked for review", reviewed),
    ]
    return [ranking for ranking in lists if ranking.cases]


def _verdict(case: CaseResult, cohort: Cohort) -> str:
    """``subtype1 (83 %), reference subtype0``."""
    result, classes = case.classified, cohort.classes
    if result is None or classes is None:
        return ""
    text = classes.names[result.predicted]
    if result.confidence is not None:
        text += f" ({percent(result.confidence)})"
    return text if result.truth is None else f"{text}, reference {classes.names[result.truth]}"
