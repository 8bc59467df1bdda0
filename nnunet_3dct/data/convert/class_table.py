"""The table of classes that comes with images: CSV or Excel, columns by name, classes as numbers or as names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.formats.class_label_files import UNKNOWN, as_label, case_name
from nnunet_3dct.formats.excel_tables import EXCEL_ENDINGS, OLD_EXCEL_ENDINGS, read_excel
from nnunet_3dct.formats.text_tables import Row, normalized, read_table

# how the columns are called, the likeliest first; compared without blanks, hyphens and underscores
_NAMES = ("names", "name", "case", "cases", "caseid", "casename", "filename", "file", "image", "imageid", "imagename",
          "scan", "scanid", "volume", "id")  # fmt: skip
_CLASSES = ("subtype", "class", "classlabel", "label", "labels", "category", "diagnosis", "type", "histology", "target",
            "y")  # fmt: skip
_PATIENTS = ("patient", "patientid", "subject", "subjectid", "pid", "mrn")
_PARTS = ("split", "part", "set", "subset", "partition")
_NO_CLASS = {"", "-", "?", "na", "n/a", "nan", "none", "null", "unknown", "-1", "-1.0"}
_PART_NAMES = {
    "Tr": ("tr", "train", "training"),
    "Val": ("val", "valid", "validation", "dev"),
    "Ts": ("ts", "test", "testing"),
}


@dataclass(frozen=True)
class Columns:
    """Names of the columns where they are not the usual ones; None to find the column by itself."""

    names: str | None = None
    classes: str | None = None
    patients: str | None = None
    parts: str | None = None


@dataclass(frozen=True)
class TableRow:
    """One row: ``label`` is -1 where the class is unknown, ``patient`` and ``part`` are empty where not stated."""

    line: int
    name: str
    label: int
    patient: str
    part: str


@dataclass
class ClassTable:
    """What a table says.

    Attributes:
        source: the file.
        rows: that can be used.
        class_names: of the classes 0, 1, ..., where the table has names and not numbers.
        problems: row -> what is wrong with it.
        notes: worth reading.
        hide_names: messages do not quote names and patients, which identify somebody.
    """

    source: Path
    rows: list[TableRow] = field(default_factory=list)
    class_names: list[str] | None = None
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    hide_names: bool = False

    def shown(self, name: str) -> str:
        """A name for a message."""
        return "a name" if self.hide_names else repr(name)


def read_class_table(
    path: Path,
    columns: Columns | None = None,
    *,
    sheet: str | None = None,
    class_names: Sequence[str] | None = None,
    hide_names: bool = False,
) -> ClassTable:
    """Read a table of classes.

    Args:
        path: CSV (comma, semicolon or tab; UTF-8, UTF-16 or code page 1252) or ``.xlsx``.
        columns: their names.
        sheet: of the workbook.
        class_names: order of the classes where the table has names; None for the alphabet's.
        hide_names: quote no names of cases in messages.

    Raises:
        SettingsError: the file cannot be read, or has no column for the cases or the classes.
    """
    columns = columns or Columns()
    rows = _read(path, sheet, columns)
    if not rows:
        raise SettingsError(f"{path}: expected a table with a header, found an empty file.")
    header, body = rows[0].cells, rows[1:]
    patients = _column(header, columns.patients, _PATIENTS, path, "patients")
    names = _column(header, columns.names, _NAMES, path, "cases")
    names = patients if names is None else names
    classes = _column(header, columns.classes, _CLASSES, path, "classes")
    parts = _column(header, columns.parts, _PARTS, path, "parts")
    for index, what in ((names, "the names of the cases"), (classes, "the classes")):
        if index is None:
            raise SettingsError(
                f"{path}: expected a column with {what}, such as Names and Subtype, found {listing(header)}. Say which "
                "one it is."
            )
    table = ClassTable(Path(path), hide_names=hide_names)
    picked = [
        _Cells(row.line, *(_cell(row, index) for index in (names, classes, patients, parts)))
        for row in body
    ]  # fmt: skip
    labels = _number_classes([row.label for row in picked], class_names, table)
    for row in picked:
        problem = _add(row, labels, table)
        if problem:
            table.problems[f"{table.source.name}, line {row.line}"] = problem
    return table


class Matcher:
    """Finds the row of a case, also where the table writes its name a little differently."""

    def __init__(self, table: ClassTable) -> None:
        self.table = table
        self.used: set[int] = set()
        self._by_key: dict[str, list[TableRow]] = {}
        for row in table.rows:
            for key in (row.name, *_loose(row.name)):
                self._by_key.setdefault(key, []).append(row)

    def find(self, *names: str) -> TableRow | None:
        """The row of a case that is known by any of ``names``, best first; None where there is none, or several."""
        for name in names:
            for key in (name, *_loose(name)):
                rows = self._by_key.get(key, [])
                if len({row.line for row in rows}) == 1:
                    self.used.add(rows[0].line)
                    return rows[0]
        return None

    def unused(self) -> list[TableRow]:
        """Rows that no case has asked for."""
        return [row for row in self.table.rows if row.line not in self.used]


@dataclass(frozen=True)
class _Cells:
    line: int
    name: str
    label: str
    patient: str
    part: str


def _read(path: Path, sheet: str | None, columns: Columns) -> list[Row]:
    ending = Path(path).suffix.lower()
    if ending in EXCEL_ENDINGS:
        return read_excel(path, sheet)
    if ending in OLD_EXCEL_ENDINGS:
        raise SettingsError(f"{path}: expected CSV or .xlsx, found {ending}. Save the table as .xlsx or as CSV.")
    stated = [normalized(name) for name in (columns.names, columns.classes) if name]
    try:
        return read_table(path, stated)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: the table of classes cannot be read: {error}.") from error


def _column(header: Sequence[str], stated: str | None, usual: Sequence[str], path: Path, what: str) -> int | None:
    if stated is not None:
        found = [n for n, cell in enumerate(header) if normalized(cell) == normalized(stated)]
        if len(found) != 1:
            times = "twice" if found else "not"
            raise SettingsError(f"{path}: expected one column {stated} ({what}), found it {times}: {listing(header)}.")
        return found[0]
    bare = [re.sub(r"[\s_-]", "", normalized(cell)) for cell in header]
    for name in usual:
        if bare.count(name) > 1:
            raise SettingsError(f"{path}: expected one column {name} ({what}), found it twice. Say which one it is.")
        if name in bare:
            return bare.index(name)
    return None


def _cell(row: Row, index: int | None) -> str:
    return "" if index is None or index >= len(row.cells) else row.cells[index]


def _number_classes(cells: Sequence[str], class_names: Sequence[str] | None, table: ClassTable) -> dict[str, int]:
    """Text of a cell -> class; texts that are none are not in it."""
    stated = [cell for cell in cells if cell.casefold() not in _NO_CLASS]
    unknown = {cell: UNKNOWN for cell in cells if cell.casefold() in _NO_CLASS}
    numbers = {cell: number for cell in stated if (number := as_label(cell)) is not None}
    present = sorted({number for number in numbers.values() if number >= 0})
    from_one = len(present) > 1 and present == list(range(1, len(present) + 1))
    if class_names is None and 2 * len([cell for cell in stated if cell in numbers]) > len(stated) and not from_one:
        return unknown | numbers
    if from_one and class_names is None:
        table.class_names = [str(number) for number in present]
        table.notes.append(
            f"{table.source.name}: the classes {listing(present)} are numbered from 0 here, as training needs it; the "
            "numbers of the table are kept as the names of the classes."
        )
        return unknown | {cell: number - 1 for cell, number in numbers.items()}
    spellings: dict[str, Counter[str]] = {}
    for cell in stated:
        spellings.setdefault(_folded(cell), Counter())[" ".join(cell.split())] += 1
    for key, counts in spellings.items():
        if len(counts) > 1:
            table.notes.append(f"{table.source.name}: {listing(sorted(counts))} are taken for one class.")
        spellings[key] = Counter(dict(counts.most_common(1)))
    if class_names is None:
        table.class_names = [next(iter(spellings[key])) for key in sorted(spellings)]
        order = {key: number for number, key in enumerate(sorted(spellings))}
    else:
        table.class_names = list(class_names)
        order = {_folded(name): number for number, name in enumerate(class_names)}
    return unknown | {cell: order[_folded(cell)] for cell in stated if _folded(cell) in order}


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split())).casefold()


def _add(row: _Cells, labels: dict[str, int], table: ClassTable) -> str | None:
    """Add a row to the table; returns what is wrong with it."""
    path = PurePosixPath(row.name.replace("\\", "/"))
    if not row.name or ".." in path.parts or not path.name:
        return f"expected the name of a case, found {table.shown(row.name)}; the row is left out"
    if row.label not in labels:
        expected = f"one of {listing(table.class_names)}" if table.class_names else "a whole number from 0, or -1"
        return f"{table.shown(row.name)}: expected a class ({expected}), found {row.label!r}; the row is left out"
    part = next((part for part, names in _PART_NAMES.items() if row.part.casefold() in names), None)
    if row.part and part is None:
        return f"{table.shown(row.name)}: expected train, validation or test, found {row.part!r}; the row is left out"
    new = TableRow(row.line, case_name(path.name), labels[row.label], row.patient, part or "")
    for old in table.rows:
        if old.name == new.name:
            if (old.label, old.patient, old.part) == (new.label, new.patient, new.part):
                return None
            table.rows.remove(old)
            return (
                f"{table.shown(row.name)}: listed in line {old.line} too, with another class, patient or part; both "
                "are left out"
            )
    table.rows.append(new)
    return None


def _loose(name: str) -> list[str]:
    """Other ways to write a name, each more liberal: other capitals, no channel number, no leading zeros."""
    folded = unicodedata.normalize("NFC", name).casefold()
    keys = ["fold:" + folded, "fold:" + re.sub(r"_0000$", "", folded)]
    if folded.isdecimal():
        keys.append(f"number:{int(folded)}")
    return keys
