"""What a check says: one finding for each fault, with the cases that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nnunet_3dct.errors import listing

Level = Literal["problem", "warning", "note"]
LEVELS: tuple[Level, ...] = ("problem", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        subject: what it is about, such as ``orientation``.
        level: a ``problem`` has to be corrected; a ``warning`` is likely to cost accuracy or hours and may be meant; a
            ``note`` is worth knowing.
        text: what was found, what was expected and what to do.
        cases: identifiers of the cases that it is about; empty where it is about the dataset as a whole.
    """

    subject: str
    level: Level
    text: str
    cases: tuple[str, ...] = ()


def shown(cases: Sequence[str], limit: int = 6) -> str:
    """Names of cases for a text, the rest as a number."""
    return listing(list(cases), limit)


def count(number: int, what: str) -> str:
    """Number and noun, such as ``1 case`` and ``2 cases``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def with_named_cases(findings: Iterable[Finding], known: Sequence[str]) -> list[Finding]:
    """The findings, those without cases with the ones whose names stand in their text.

    Args:
        findings: of any check.
        known: identifiers of all cases.
    """
    names = set(known)
    result = []
    for finding in findings:
        if not finding.cases:
            words = re.split(r"[\s,;:()'\"]+", finding.text)
            finding = replace(finding, cases=tuple(dict.fromkeys(word for word in words if word in names)))
        result.append(finding)
    return result
