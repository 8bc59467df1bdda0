"""Columns of a table of covariates: which hold numbers, which categories, and what counts as missing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

from nnunet_3dct.errors import listing
from nnunet_3dct.formats.text_tables import strip

Kind = Literal["number", "category"]
Value = float | str | None

NUMBER: Kind = "number"
CATEGORY: Kind = "category"
MISSING = frozenset(
    ("", "na", "n/a", "n.a.", "n. a.", "nan", "<na>", "null", "#n/a", "unknown", "missing", "?", "-", "--", ".", "nd")
)
MISSING_NUMBERS = MISSING | {"none"}  # which is a category of its own elsewhere: "symptoms: none"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")
_FEWEST_VALUES = 5  # of a column that is taken for an identifier
_IDENTIFIER = re.compile(r"(?:.*[ _-])?id|mrn|accession(?:[ _-]?number)?")


def is_missing(text: str, kind: Kind = CATEGORY) -> bool:
    """Whether a cell states no value.

    Examples:
        >>> is_missing("n/a"), is_missing("none"), is_missing("none", NUMBER), is_missing("0")
        (True, False, True, False)
    """
    return strip(text).casefold() in (MISSING_NUMBERS if kind == NUMBER else MISSING)


def as_number(text: str, decimal_comma: bool = False) -> float | None:
    """The finite number that a cell holds; None if it holds something else.

    Args:
        text: the cell.
        decimal_comma: whether ``0,5`` is a number, as in tables that no comma separates.

    Examples:
        >>> as_number("67"), as_number("0,5", decimal_comma=True), as_number("1,234"), as_number("67y")
        (67.0, 0.5, None, None)
    """
    text = strip(text)
    if not _NUMBER.fullmatch(text) or ("," in text and not decimal_comma):
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def column_kind(cells: Mapping[str, str], decimal_comma: bool = False) -> Kind | None:
    """Kind of a column; None where it holds no value.

    At least half of what is stated being numbers makes it one of numbers; what is no number there is an error.

    Args:
        cells: case -> cell.
        decimal_comma: see :func:`as_number`.
    """
    stated = [text for text in cells.values() if not is_missing(text, NUMBER)]
    numbers = sum(as_number(text, decimal_comma) is not None for text in stated)
    if not stated:
        return CATEGORY if any(not is_missing(text) for text in cells.values()) else None
    return NUMBER if 2 * numbers >= len(stated) else CATEGORY


def convert_column(
    column: str, cells: Mapping[str, str], kind: Kind, decimal_comma: bool = False
) -> tuple[dict[str, Value], list[str]]:
    """Values of a column, and one line for each cell that does not fit its kind.

    Args:
        column: its name.
        cells: case -> cell.
        kind: of the column.
        decimal_comma: see :func:`as_number`.
    """
    values: dict[str, Value] = {}
    problems = []
    for case, text in cells.items():
        if is_missing(text, kind):
            values[case] = None
        elif kind == CATEGORY:
            values[case] = strip(text)
        else:
            values[case] = number = as_number(text, decimal_comma)
            if number is None:
                problems.append(f"{case}: column {column}: expected a number, found {text!r}")
    marks = {mark for text in cells.values() for mark in ".," if mark in text and kind == NUMBER}
    if len(marks) > 1 and not problems:
        examples = [next(text for text in cells.values() if mark in text) for mark in ".,"]
        problems.append(
            f"column {column}: expected one decimal mark, found {listing(examples)}; write all its numbers with a point"
        )
    return values, problems


def check_use(column: str, kind: Kind | None, values: Mapping[str, Value]) -> str | None:
    """Why a column is of no use for telling classes apart, None if it may be.

    Args:
        column: its name.
        kind: as :func:`column_kind` tells it.
        values: case -> value.
    """
    stated = [value for value in values.values() if value is not None]
    distinct = {value.casefold() if isinstance(value, str) else value for value in stated}
    if kind is None or not stated:
        return f"column {column}: expected values, found none in {len(values)} rows; remove the column"
    if len(distinct) < _FEWEST_VALUES:
        return None
    if kind == CATEGORY and 2 * len(distinct) > len(stated):
        return (
            f"column {column}: expected a number, or a category that several cases share; found {len(distinct)} "
            f"different texts in {len(stated)} cases, such as {listing(stated, 3)}. Remove it, or name it Patient if "
            "it tells patients apart; of a date take a number, such as the age"
        )
    running = stated in ([*range(len(stated))], [*range(1, len(stated) + 1)])
    named = _IDENTIFIER.fullmatch(column.casefold()) and 2 * len(distinct) > len(stated)
    if kind == NUMBER and (running or named):
        what = "running numbers" if running else f"{len(distinct)} different numbers in {len(stated)} cases"
        return (
            f"column {column}: expected a covariate, found {what}, as an identifier has them. Remove it, or name it "
            "Patient if it tells patients apart"
        )
    return None


def reveals_class(values: Mapping[str, Value], classes: Mapping[str, int]) -> bool:
    """Whether the values of a column tell the class without fail, as the class under another name does.

    That is so where the values are the classes (in three cases or more), or no value occurs in two classes and either
    each class has one value or there are ten cases and more. So it is where being stated or missing tells the class.
    Columns of mostly different values (an age) tell nothing that way.

    Args:
        values: case -> value.
        classes: case -> class, -1 for unknown.

    Examples:
        >>> classes = dict(enumerate([0, 0, 1, 1]))
        >>> reveals_class(dict(enumerate(["b", "b", "a", "a"])), classes)
        True
        >>> reveals_class(dict(enumerate([50.0, 51.0, 52.0, 53.0])), classes)
        False
    """
    known = [(_folded(values[case]), label) for case, label in classes.items() if label >= 0 and case in values]
    stated: list[tuple[Value, int]] = [(value, label) for value, label in known if value is not None]
    presence: list[tuple[Value, int]] = [(float(value is None), label) for value, label in known]
    equal = [str(label) == _written(value) for value, label in stated]
    same = all(equal) and len(equal) >= 3 and len({label for _, label in stated}) > 1
    return same or any(_determines(pairs) for pairs in (stated, presence))


def _written(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _folded(value: Value) -> Value:
    return value.casefold() if isinstance(value, str) else value


def _determines(pairs: list[tuple[Value, int]]) -> bool:
    values, classes = {value for value, _ in pairs}, {label for _, label in pairs}
    together = set(pairs)
    if len(classes) < 2 or 2 * len(values) > len(pairs) or len(together) > len(values):
        return False
    return len(values) == len(classes) or len(pairs) >= 10
