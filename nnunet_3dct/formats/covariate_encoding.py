"""Covariates of a case as one vector, fitted on training cases; plain values in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnunet_3dct.errors import CheckpointError, SettingsError, listing
from nnunet_3dct.formats.clinical import ClinicalTable
from nnunet_3dct.formats.clinical_columns import CATEGORY, NUMBER, Kind, Value
from nnunet_3dct.formats.covariate_columns import CategoryColumn, Comparison, NumberColumn, fit_category, fit_number
from nnunet_3dct.formats.text_tables import normalized


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
                fit_number(name, [row[name] for row in rows])
                if kind == NUMBER
                else fit_category(name, [row[name] for row in rows])
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
