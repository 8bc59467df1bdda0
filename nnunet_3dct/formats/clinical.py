"""``clinical.csv``: covariates of the cases, such as age and sex; a column is a number or a category.

It lies where the class labels do; :func:`read_dataset_clinical` is the one search for it.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.formats.class_label_files import NAMES, PATIENT, SUBTYPE, case_name
from nnunet_3dct.formats.clinical_columns import (
    Kind,
    Value,
    check_use,
    column_kind,
    convert_column,
    reveals_class,
)
from nnunet_3dct.formats.text_tables import normalized, read_separated
from nnunet_3dct.paths import labels_folders

CLINICAL_NAME = "clinical.csv"
PATIENT_COLUMNS = (PATIENT, "patient_id", "patient id", "patientid")
Covariates = Mapping[str, Value]


@dataclass(frozen=True)
class ClinicalTable:
    """Covariates of every case of a table.

    Attributes:
        kinds: column -> ``number`` or ``category``; in the order and spelling of the file.
        by_case: case -> column -> value; None where it is missing.
        source: the file.
        unused: further columns of the file, where only those of a model were asked for.
    """

    kinds: dict[str, Kind]
    by_case: dict[str, dict[str, Value]]
    source: Path
    unused: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the covariates."""
        return list(self.kinds)

    def of(self, case: str) -> dict[str, Value]:
        """Covariates of a case; all missing if it has no row."""
        return self.by_case.get(case) or dict.fromkeys(self.kinds)

    def without_row(self, cases: Iterable[str]) -> list[str]:
        """Those of ``cases`` that have no row, sorted."""
        return sorted(case for case in cases if case not in self.by_case)


def read_dataset_clinical(name: str) -> ClinicalTable | None:
    """The covariates of a dataset: beside the preprocessed, else the raw data; None if there are none.

    Args:
        name: full name of the dataset, such as ``Dataset001_Pancreas``.

    Raises:
        SettingsError: the table is malformed, or both folders hold tables that differ.
    """
    return read_clinical_in(labels_folders(name))


def read_clinical_in(folders: Sequence[Path]) -> ClinicalTable | None:
    """The table of the first folder that holds one, after a comparison with those of the others.

    Raises:
        SettingsError: it is malformed, or those of two folders differ.
    """
    files = [folder / CLINICAL_NAME for folder in dict.fromkeys(map(Path, folders))]
    tables = [read_clinical_table(path) for path in files if path.is_file()]
    for other in tables[1:]:
        first = tables[0]
        if other.kinds != first.kinds or other.by_case != first.by_case:
            cases = sorted({*first.by_case, *other.by_case})
            differing = [case for case in cases if first.by_case.get(case) != other.by_case.get(case)]
            raise SettingsError(
                f"Two tables of covariates differ: {first.source} and {other.source}, in the cases "
                f"{listing(differing)}. Delete the one that is out of date, or copy the right one over it."
            )
    return tables[0] if tables else None


def read_clinical_table(path: Path, kinds: Mapping[str, Kind] | None = None) -> ClinicalTable:
    """Read a table with the column ``Names`` and one column for each covariate.

    Separated by commas, semicolons or tabs, in UTF-8, UTF-16 or Latin-1; a decimal comma is read where no comma
    separates. Empty cells, ``NA``, ``n/a``, ``unknown``, ``?`` and the like are missing values. The column ``Patient``
    is left out.

    Args:
        path: of the file.
        kinds: covariates of a model -> their kinds. These columns are read and no others, and the table may be as small
            as one case. Without it all columns are, and their kinds are found from their values.

    Raises:
        SettingsError: the file is missing or malformed, a column of the model is not there, a case or a column stands
            there twice, a number column holds text; or, without ``kinds``, a column holds nothing or identifiers. All
            that is wrong is listed in one message.
    """
    path = Path(path)
    header, cells_by_case, decimal_comma = _read_cells(path)
    used = [column for column in header if normalized(column) not in (NAMES, *PATIENT_COLUMNS, "")]
    spelled = {column: column for column in used}  # name in the table that is returned -> header of the file
    if kinds is not None:
        there = {normalized(column): column for column in used}
        missing = [column for column in kinds if normalized(column) not in there]
        if missing:
            raise SettingsError(
                f"Covariates {path}: expected the columns {listing(list(kinds))}, which the model was trained with; "
                f"{listing(missing)} not found among {listing(used) or 'none'}. Add the column; its cells may be empty."
            )
        spelled = {column: there[normalized(column)] for column in kinds}
    elif not used:
        raise SettingsError(f"Covariates {path}: expected a column beside Names, such as age, found none.")
    found: dict[str, Kind] = {}
    by_case: dict[str, dict[str, Value]] = {case: {} for case in cells_by_case}
    problems = []
    for name, column in spelled.items():
        cells = {case: row[column] for case, row in cells_by_case.items()}
        kind = kinds[name] if kinds is not None else column_kind(cells, decimal_comma)
        values, wrong = convert_column(name, cells, kind or "category", decimal_comma)
        useless = None if kinds is not None or wrong else check_use(name, kind, values)
        problems += [*wrong, *([useless] if useless else [])]
        found[name] = kind or "category"
        for case, value in values.items():
            by_case[case][name] = value
    if problems:
        raise _problems(
            path,
            problems,
            "Correct it, or leave the cell empty; if a column is a category, write its numbers as text (grade 1).",
        )
    return ClinicalTable(found, by_case, path, tuple(c for c in used if c not in spelled.values()))


def check_clinical_table(table: ClinicalTable, cases: Iterable[str], classes: Mapping[str, int]) -> list[str]:
    """Compare a table with the dataset that it belongs to.

    Args:
        table: what was read.
        cases: all identifiers of the dataset, those of test images as well.
        classes: case -> class, -1 for unknown.

    Returns:
        One line for each problem, empty when all is well. Cases without a row are none, see
        :meth:`ClinicalTable.without_row`.
    """
    known = set(cases)
    problems = [_unknown_case(case, known) for case in table.by_case if case not in known]
    for column in table.columns:
        values = {case: row[column] for case, row in table.by_case.items()}
        if normalized(column) == SUBTYPE or reveals_class(values, classes):
            shown = {str(value): label for case, value in values.items() if (label := classes.get(case, -1)) >= 0}
            problems.append(
                f"column {column}: expected a covariate, found what is the class under another name: "
                f"{listing([f'{value} = class {label}' for value, label in sorted(shown.items())], 5)}. Remove it; "
                "it is not known of a new case"
            )
    return problems


def require_clinical_table(table: ClinicalTable, cases: Iterable[str], classes: Mapping[str, int]) -> None:
    """Raise one SettingsError that lists everything :func:`check_clinical_table` finds."""
    problems = check_clinical_table(table, cases, classes)
    if problems:
        raise _problems(table.source, problems, "Correct the table.")


def misspelt_rows(table: ClinicalTable, cases: Iterable[str]) -> dict[str, str]:
    """Rows of unknown cases -> the case without a row that they mean without doubt.

    Names mean the same that differ in upper and lower case, blanks, dashes, a channel number or zeros before a number.
    """
    known = list(cases)
    alike = {_bare(case): case for case in table.without_row(known)}
    unknown = set(table.by_case) - set(known)
    return {row: alike[_bare(row)] for row in sorted(unknown) if _bare(row) in alike}


def _bare(case: str) -> str:
    """The name of a case without what is often written in two ways."""
    return re.sub(r"0+(?=[0-9])", "", re.sub(r"[\s_-]+", "", re.sub(r"_0000$", "", case.casefold())))


def _unknown_case(row: str, cases: Iterable[str]) -> str:
    known = sorted(cases)
    same = [case for case in known if _bare(case) == _bare(row)]
    close = same or difflib.get_close_matches(row, known, 1)
    meant = f"did you mean {close[0]}?" if close else "remove the row"
    return f"{row}: expected a case of the dataset, found none of that name; {meant}"


def _problems(path: Path, problems: Sequence[str], remedy: str) -> SettingsError:
    shown = [*problems[:20], *([f"and {len(problems) - 20} more"] if problems[20:] else [])]
    number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return SettingsError(f"Covariates {path}: {number}. {remedy}\n  " + "\n  ".join(shown))


def _read_cells(path: Path) -> tuple[list[str], dict[str, dict[str, str]], bool]:
    """Header, case -> column -> cell, and whether numbers may have a decimal comma."""
    try:
        rows, separator = read_separated(path, (NAMES,))
    except (OSError, ValueError) as error:
        raise SettingsError(f"Covariates {path} cannot be read: {error}. Check the path.") from error
    header = list(rows[0].cells) if rows else []
    names = [normalized(column) for column in header]
    if NAMES not in names and names[:1] == [""]:
        header[0], names[0] = "Names", NAMES  # pandas writes an index without a name
    if names[:1] in ([""], ["unnamed: 0"]):
        header[0] = names[0] = ""  # and one that was written, read and written again
    if NAMES not in names:
        raise SettingsError(
            f"Covariates {path}: expected the header Names,<covariate>,..., such as Names,age,sex, found "
            f"{','.join(header) or 'an empty file'}. Name the column of the cases Names."
        )
    problems = [f"column {name} stands there twice" for name, n in Counter(names).items() if name and n > 1]
    table: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}
    for row in rows[1:]:
        cells = [*row.cells, *[""] * (len(header) - len(row.cells))]
        case = case_name(cells[names.index(NAMES)])
        if any(cells[len(header) :]):
            problems.append(
                f"line {row.line}: expected {len(header)} cells as in the header, found {len(row.cells)}: "
                f"{listing(row.cells, 5)}; put a text that holds the separator in quotes"
            )
        elif not case:
            problems.append(f"line {row.line}: expected the name of a case, found none")
        elif case in table:
            problems.append(f"{case}: expected one row, found the lines {lines[case]} and {row.line}")
        else:
            table[case], lines[case] = dict(zip(header, cells, strict=False)), row.line
        if any(cell and not name for cell, name in zip(cells[1:], names[1:], strict=False)):
            problems.append(f"line {row.line}: expected a name over every column that is used, found none")
    if problems:
        raise _problems(path, problems, "Correct the table.")
    if not table:
        raise SettingsError(f"Covariates {path}: expected a row for each case, found none.")
    return header, table, separator != ","
