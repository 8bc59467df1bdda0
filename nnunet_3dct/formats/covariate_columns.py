"""One covariate, a number or a category, as the numbers that a linear layer takes; fitted on training cases."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.formats.clinical_columns import CATEGORY, NUMBER, Kind, Value, is_missing
from nnunet_3dct.formats.text_tables import strip

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
        """The value as it is used; see :meth:`~nnunet_3dct.formats.covariate_encoding.CovariateEncoding.accept`."""
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
        """See :meth:`~nnunet_3dct.formats.covariate_encoding.CovariateEncoding.in_words`."""
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
        """The value as it is used; see :meth:`~nnunet_3dct.formats.covariate_encoding.CovariateEncoding.accept`."""
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
        """See :meth:`~nnunet_3dct.formats.covariate_encoding.CovariateEncoding.in_words`."""
        return Comparison(name if number > usual else name.replace(" = ", " is not stated as ", 1))

    def remark(self, value: Value) -> str | None:
        """What is unusual about a value, None for nothing."""
        known = (*self.categories, *self.rare)
        if value is None or any(_same(value, category) for category in known):
            return None
        return f"{self.name} = {value} is in no training case (known: {listing(known) or 'none'}); taken as missing"


def fit_number(name: str, values: Sequence[Value]) -> NumberColumn:
    """A number as the training cases have it; None where it is missing."""
    stated = np.array([value for value in values if isinstance(value, float)])
    flags_missing = len(stated) < len(values)
    if not len(stated):
        return NumberColumn(name, 0.0, 1.0, None, None, flags_missing)
    low, high = float(stated.min()), float(stated.max())
    if low == high:  # exactly: a spread of rounding errors would blow up what differs
        return NumberColumn(name, low, 1.0, low, high, flags_missing)
    return NumberColumn(name, float(stated.mean()), float(stated.std()), low, high, flags_missing)


def fit_category(name: str, values: Sequence[Value]) -> CategoryColumn:
    """A category as the training cases have it; None where it is missing."""
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
