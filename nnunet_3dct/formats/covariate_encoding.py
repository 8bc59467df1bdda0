"""Covariates as the numbers that a linear layer takes, fitted on training cases; plain values in a checkpoint."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnunet_3dct.errors import CheckpointError, SettingsError, listing
from nnunet_3dct.formats.clinical import ClinicalTable
from nnunet_3dct.formats.clinical_columns import CATEGORY, NUMBER, Kind, Value, is_missing
from nnunet_3dct.formats.text_tables import normalized, strip

FEWEST_CASES = 2  # of a category that has a number of its own
FAR = 0.25  # of the training cases' range, beyond it


@dataclass(frozen=True)
class Comparison:
    """A covariate of a case beside the training cases, in words; the values of a number in its own unit."""

    words: str
    value: float | None = None
    typical: float | None = None


@dataclass(frozen=True)
class NumberColumn:
    """A covariate that is a number: ``(value - mean) / spread``, 0 where it is missing.

    Attributes:
        name: as the table spells it.
        mean, spread: of the training cases that state it; 0 and 1 if none does.
        low, high: their range; None if none states it.
        flags_missing: whether a second number says that it is missing, since it is in a training case.
    """

    name: str
    mean: float
    spread: float
    low: float | None
    high: float | None
    flags_missing: bool

    @property
    def kind(self) -> Kind:
        """``number``."""
        return NUMBER

    @property
    def names(self) -> list[str]:
        """Of the numbers."""
        return [self.name, *([f"{self.name} missing"] if self.flags_missing else [])]

    def accept(self, value: object) -> Value:
        """The value as it is used; see :meth:`CovariateEncoding.accept`."""
        if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
            return None
        if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
            if math.isfinite(value):
                return float(value)
        elif isinstance(value, str) and is_missing(value, NUMBER):
            return None
        raise SettingsError(f"covariates: {self.name}: expected a number or None, found {value!r}.")

    def encode(self, value: Value) -> list[float]:
        """The numbers for a value."""
        number = 0.0 if value is None else (float(value) - self.mean) / self.spread
        return [number, *([float(value is None)] if self.flags_missing else [])]

    def in_words(self, name: str, number: float, usual: float) -> Comparison:
        """See :meth:`CovariateEncoding.in_words`."""
        if name != self.name:
            return Comparison(f"{name}" if number > usual else f"{self.name} known")
        if number == 0:  # as where it is missing
            return Comparison(f"average {name}")
        value, typical = (z * self.spread + self.mean for z in (number, usual))
        return Comparison(f"{'higher' if number > usual else 'lower'} {name}", value, typical)

    def remark(self, value: Value) -> str | None:
        """What is unusual about a value, None for nothing."""
        if not isinstance(value, float) or self.low is None or self.high is None:
            return None
        margin = FAR * (self.high - self.low)
        if self.low - margin <= value <= self.high + margin:
            return None
        return f"{self.name} = {value:g} lies far outside {self.low:g} to {self.high:g} of the training cases"


@dataclass(frozen=True)
class CategoryColumn:
    """A covariate that is a category: 1 for its own number and 0 for the others, 0 everywhere where it is missing.

    Upper and lower case mean the same.

    Attributes:
        name: as the table spells it.
        categories: with a number of their own, sorted.
        rare: categories of a single training case, which share one number.
    """

    name: str
    categories: tuple[str, ...]
    rare: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """``category``."""
        return CATEGORY

    @property
    def names(self) -> list[str]:
        """Of the numbers."""
        return [f"{self.name} = {category}" for category in (*self.categories, *(["other"] if self.rare else []))]

    def accept(self, value: object) -> Value:
        """The value as it is used; see :meth:`CovariateEncoding.accept`."""
        if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
            return None
        if not isinstance(value, str | int | np.integer):
            raise SettingsError(f"covariates: {self.name}: expected a text or None, found {value!r}.")
        return None if is_missing(str(value)) else strip(str(value))

    def encode(self, value: Value) -> list[float]:
        """The numbers for a value."""
        own = [float(_same(value, category)) for category in self.categories]
        return [*own, *([float(any(_same(value, category) for category in self.rare))] if self.rare else [])]

    def in_words(self, name: str, number: float, usual: float) -> Comparison:
        """See :meth:`CovariateEncoding.in_words`."""
        return Comparison(name if number > usual else name.replace(" = ", " is not stated as ", 1))

    def remark(self, value: Value) -> str | None:
        """What is unusual about a value, None for nothing."""
        known = (*self.categories, *self.rare)
        if value is None or any(_same(value, category) for category in known):
            return None
        return f"{self.name} = {value} is in no training case (known: {listing(known) or 'none'}); taken as missing"


@dataclass(frozen=True)
class CovariateEncoding:
    """Covariates of a case -> a vector, as the training cases of one fold set it.

    Attributes:
        columns: covariates in the order of the table.

    Examples:
        >>> from pathlib import Path
        >>> rows = {"a": {"age": 50.0, "sex": "F"}, "b": {"age": 70.0, "sex": "M"}, "c": {"age": None, "sex": "F"},
        ...         "d": {"age": 60.0, "sex": "M"}}
        >>> table = ClinicalTable({"age": NUMBER, "sex": CATEGORY}, rows, Path("clinical.csv"))
        >>> encoding = CovariateEncoding.fit(table, ["a", "b", "c", "d"])
        >>> encoding.names
        ['age', 'age missing', 'sex = F', 'sex = M']
        >>> encoding.encode({"age": None, "sex": "M"}).tolist()
        [0.0, 1.0, 0.0, 1.0]
        >>> encoding.remarks({"age": 670.0, "sex": "F"})
        ['age = 670 lies far outside 50 to 70 of the training cases']
    """

    columns: tuple[NumberColumn | CategoryColumn, ...]

    @classmethod
    def fit(cls, table: ClinicalTable, cases: Iterable[str]) -> CovariateEncoding:
        """Means, spreads and categories of ``cases``; those without a row miss every covariate."""
        rows = [table.of(case) for case in cases]
        return cls(
            tuple(
                _fit_number(name, [row[name] for row in rows])
                if kind == NUMBER
                else _fit_category(name, [row[name] for row in rows])
                for name, kind in table.kinds.items()
            )
        )

    @property
    def kinds(self) -> dict[str, Kind]:
        """Covariate -> ``number`` or ``category``, to read a table for this model with."""
        return {column.name: column.kind for column in self.columns}

    @property
    def names(self) -> list[str]:
        """What each number of the vector is, such as ``age``, ``sex = F`` or ``ca19-9 missing``."""
        return [name for column in self.columns for name in column.names]

    @property
    def width(self) -> int:
        """Length of the vector."""
        return len(self.names)

    def accept(self, values: Mapping[str, object]) -> dict[str, Value]:
        """Check covariates that somebody gives for one case.

        Args:
            values: covariate -> number, text, or None where it is missing; upper and lower case mean the same.

        Returns:
            Them in the model's order and spelling.

        Raises:
            SettingsError: a covariate is lacking, not known, given twice or of the wrong kind.
        """
        given = {normalized(name): value for name, value in values.items()}
        wanted = {normalized(column.name): column for column in self.columns}
        lacking = [column.name for name, column in wanted.items() if name not in given]
        unknown = [name for name in values if normalized(name) not in wanted]
        if lacking or unknown or len(given) < len(values):
            more = f"not known: {listing(unknown)}; " if unknown else ""
            raise SettingsError(
                f"covariates: expected {listing(list(self.kinds))}, once each, found {listing(list(values)) or 'none'} "
                f"({more}lacking: {listing(lacking) or 'none'}). Give None for what is missing."
            )
        return {column.name: column.accept(given[name]) for name, column in wanted.items()}

    def encode(self, values: Mapping[str, Value] | None) -> np.ndarray:
        """The vector ``(width,)`` of a case, float64.

        Args:
            values: covariate -> value as :meth:`accept` and tables give them; those not stated are missing, None for
                all. A category that no training case has counts as missing, see :meth:`remarks`.
        """
        values = values or {}
        return np.array([x for column in self.columns for x in column.encode(values.get(column.name))], np.float64)

    def remarks(self, values: Mapping[str, Value] | None) -> list[str]:
        """What is unusual: categories that no training case has, numbers far outside the training cases' range."""
        found = [column.remark((values or {}).get(column.name)) for column in self.columns]
        return [remark for remark in found if remark is not None]

    def in_words(self, name: str, number: float, usual: float) -> Comparison:
        """Say what a number of the vector means.

        Args:
            name: one of :attr:`names`.
            number: of a case.
            usual: mean of the training cases.
        """
        column = next(column for column in self.columns if name in column.names)
        return column.in_words(name, number, usual)

    def missing(self, values: Mapping[str, Value] | None) -> list[str]:
        """Covariates without a value."""
        return [column.name for column in self.columns if (values or {}).get(column.name) is None]

    def to_dict(self) -> dict[str, Any]:
        """Lists, texts and numbers alone, for JSON and for checkpoints that are read strictly."""
        return {
            "columns": [
                {"kind": column.kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(column).items()}
                for column in self.columns
            ]
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CovariateEncoding:
        """The encoding that :meth:`to_dict` gave.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            return cls(tuple(_column(dict(stated)) for stated in content["columns"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"Covariates of a checkpoint: expected its covariates with their means and categories, found "
                f"{str(content)[:200]} ({type(error).__name__}: {error}). Fit the head again."
            ) from error


def _column(stated: dict[str, Any]) -> NumberColumn | CategoryColumn:
    kind = stated.pop("kind")
    if kind == NUMBER:
        return NumberColumn(**stated)
    if kind != CATEGORY:
        raise ValueError(f"kind {kind!r}")
    return CategoryColumn(stated["name"], tuple(stated["categories"]), tuple(stated["rare"]))


def _fit_number(name: str, values: Sequence[Value]) -> NumberColumn:
    stated = np.array([value for value in values if isinstance(value, float)])
    flags_missing = len(stated) < len(values)
    if not len(stated):
        return NumberColumn(name, 0.0, 1.0, None, None, flags_missing)
    low, high = float(stated.min()), float(stated.max())
    if low == high:  # exactly: a spread of rounding errors would blow up what differs
        return NumberColumn(name, low, 1.0, low, high, flags_missing)
    return NumberColumn(name, float(stated.mean()), float(stated.std()), low, high, flags_missing)


def _fit_category(name: str, values: Sequence[Value]) -> CategoryColumn:
    spellings: dict[str, Counter[str]] = {}
    for value in values:
        if isinstance(value, str):
            spellings.setdefault(value.casefold(), Counter())[value] += 1
    often: list[str] = []
    rare: list[str] = []
    for spelling in spellings.values():
        shown = min(spelling, key=lambda text: (-spelling[text], text))
        (often if spelling.total() >= FEWEST_CASES else rare).append(shown)
    return CategoryColumn(name, tuple(sorted(often)), tuple(sorted(rare)))


def _same(value: Value, category: str) -> bool:
    return value is not None and str(value).casefold() == category.casefold()
