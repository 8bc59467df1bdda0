"""Reasons for a class, as a class file holds them: which features spoke for and against it."""

from __future__ import annotations

import math
from pathlib import Path

from typing_extensions import NotRequired, TypedDict

from nnunet_3dct.errors import EvaluationError

MOST_SHARE = 1 + 1e-3  # rounding


class Reason(TypedDict):
    """What one feature adds to the class of a case.

    ``share`` is its part of all contributions, whatever their sign; ``speaks`` is ``for`` or ``against`` the predicted
    class. ``value`` and ``typical`` (mean of the training cases) are there for measured features; in HU where the plan
    normalises CT.
    """

    feature: str
    words: str
    speaks: str
    share: float
    value: NotRequired[float]
    typical: NotRequired[float]
    unit: NotRequired[str]


def check_reasons(found: object, path: Path) -> tuple[Reason, ...]:
    """Reasons as a class file holds them, checked.

    Args:
        found: as read.
        path: of the file, for the message.

    Raises:
        EvaluationError: one of them is something else.
    """
    wrong = [reason for reason in found if not _is_reason(reason)] if isinstance(found, list) else [found]
    if not isinstance(found, list) or wrong:
        raise EvaluationError(
            f"{path}: expected reasons with feature, words, speaks (for or against), share (0 to 1) and, where "
            f"they have one, value and typical as numbers, found {str(wrong[0])[:80]!r}. Predict the case again."
        )
    return tuple(found)


def _is_reason(reason: object) -> bool:
    if not isinstance(reason, dict):
        return False
    texts = [reason.get("feature"), reason.get("words"), reason.get("unit", "")]
    measured = [reason[key] for key in ("value", "typical") if reason.get(key) is not None]
    share = reason.get("share", -1)
    return (
        all(isinstance(text, str) for text in texts)
        and reason.get("speaks") in ("for", "against")
        and all(_is_number(value) for value in (share, *measured))
        and bool(0 <= share <= MOST_SHARE)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
