"""Numbers and names as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nnunet_3dct.formats.class_reasons import Reason

NONE = "–"


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """Format with ``digits`` decimals, a dash where there is no value."""
    return NONE if value is None else f"{value:{sign}.{digits}f}".replace("-", "−")


def interval(bounds: Sequence[float] | None, digits: int = 3) -> str:
    """Format ``(low, high)``."""
    return NONE if bounds is None else f"{number(bounds[0], digits)} to {number(bounds[1], digits)}"


def millilitres(value: float | None, sign: str = "") -> str:
    """Format a volume with as many decimals as it deserves."""
    return number(value, 2 if value is not None and abs(value) < 10 else 1, sign)


def percent(share: float | None, digits: int = 0) -> str:
    """Format a share in percent; what is not the whole is never rounded to it, nor what is something to nothing."""
    if share is None:
        return NONE
    step = 10.0**-digits
    if share < 1 and 100 * share > 100 - step / 2:
        return f"> {100 - step:.{digits}f} %"
    if share > 0 and 100 * share < step / 2:
        return f"< {step:.{digits}f} %"
    return f"{100 * share:.{digits}f} %"


def title(name: str) -> str:
    """A name from ``dataset.json`` as words: ``whole_organ`` -> ``whole organ``."""
    return name.replace("_", " ")


def measured(reason: Reason, key: Literal["value", "typical"]) -> str:
    """A measurement with its unit, as ``-210 HU``; a dash where there is none."""
    value = reason.get(key)
    if value is None:
        return NONE
    unit = reason.get("unit", "").replace("cm2", "cm²")
    digits = 0 if abs(value) >= 100 or unit == "HU" else 1 if abs(value) >= 10 else 2
    return f"{number(value, digits)} {unit}".strip()
