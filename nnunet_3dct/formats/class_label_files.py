"""The files that hold class labels, JSON or a table, as pairs of case and class; see :mod:`class_labels`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nnunet_3dct.errors import ClassLabelsError, listing
from nnunet_3dct.formats.text_tables import Row, decode, normalized, read_table, strip

UNKNOWN = -1
JSON_NAME, CSV_NAME = "classification.json", "classification.csv"
NAMES, SUBTYPE, PATIENT = "names", "subtype", "patient"  # columns, in lower case
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".tif", ".tiff", ".png", ".bmp")

Entry = tuple[str, object]


def case_name(name: str) -> str:
    """Identifier of a case: ``name`` without blanks around it and without the ending of an image file."""
    name = strip(name)
    ending = next((e for e in IMAGE_ENDINGS if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]


def read_json_labels(path: Path) -> dict[str, int]:
    """Case -> class from an object like ``{"case_0001": 0}``.

    Raises:
        ClassLabelsError: the file is missing or malformed, or holds values that are no classes.
    """
    return _by_case(_json_entries(path), path)


def read_csv_labels(path: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Case -> class and case -> patient from the columns ``Names``, ``Subtype`` and ``Patient``.

    Raises:
        ClassLabelsError: the file is missing or malformed, or holds values that are no classes.
    """
    columns, rows = _table(path)
    if SUBTYPE not in columns:
        raise ClassLabelsError(f"Class labels {path}: expected the header Names,Subtype, found {','.join(columns)}.")
    return _by_case([(case_name(cells[NAMES]), cells[SUBTYPE]) for cells in rows], path), _groups(rows, path)


def read_csv_beside(path: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Classes (those stated) and patients from the table of the same name beside the JSON ``path``; often none."""
    beside = path.with_suffix(".csv")
    if not beside.is_file():
        return {}, {}
    try:
        _, rows = _table(beside)
    except ClassLabelsError:
        if beside.name == CSV_NAME:
            raise
        return {}, {}  # a table of something else
    stated = [(case_name(cells[NAMES]), cells[SUBTYPE]) for cells in rows if cells.get(SUBTYPE)]
    return _by_case(stated, beside), _groups(rows, beside)


def as_label(value: object) -> int | None:
    """``value`` as a class; None if it is none. Spreadsheets and pandas write ``1.0``, with a decimal comma ``1,0``."""
    if isinstance(value, str):
        digits = re.fullmatch(r"(-?[0-9]{1,9})(?:[.,]0*)?", strip(value))
        value = int(digits[1]) if digits else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < UNKNOWN:
        return None
    return value


def _by_case(entries: Iterable[Entry], path: Path) -> dict[str, int]:
    """Put entries together.

    Raises:
        ClassLabelsError: lists every entry that is no class, and every case that is listed with two classes.
    """
    by_case: dict[str, int] = {}
    problems = []
    for case, value in entries:
        label = as_label(value)
        if not case:
            problems.append(f"expected the name of a case, found none beside the class {value!r}")
        elif label is None:
            problems.append(f"{case}: expected an integer >= 0 (or -1 for unknown), found {value!r}")
        elif by_case.setdefault(case, label) != label:
            problems.append(f"{case}: listed more than once, with the classes {by_case[case]} and {label}")
    if problems:
        raise ClassLabelsError(
            f"Class labels {path} hold {len(problems)} bad entries; correct them:\n  " + "\n  ".join(problems)
        )
    return by_case


def _json_entries(path: Path) -> list[Entry]:
    try:
        text = decode(path.read_bytes(), legacy=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ClassLabelsError(f"Class labels {path} cannot be read: {error}. Check the path.") from error
    try:
        content = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise ClassLabelsError(f"Class labels {path} are not valid JSON: {error}.") from error
    if not isinstance(content, _Pairs):
        raise ClassLabelsError(
            f'Class labels {path}: expected an object like {{"case_0001": 0}}, found {type(content).__name__}.'
        )
    return [(case_name(case), value) for case, value in content]


class _Pairs(list[tuple[str, object]]):
    """Entries of a JSON object, so that a key that stands there twice is not lost."""


def _table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Names of the columns, and each row as column -> cell; the column of the cases is found here."""
    try:
        rows = read_table(path, (NAMES,)) or [Row(1, ())]
    except (OSError, ValueError) as error:
        raise ClassLabelsError(f"Class labels {path} cannot be read: {error}. Check the path.") from error
    columns = [normalized(cell) for cell in rows[0].cells]
    if NAMES not in columns and columns[:1] == [""]:
        columns[0] = NAMES  # pandas writes an index without a name
    doubled = [name for name in (NAMES, SUBTYPE, PATIENT) if columns.count(name) > 1]
    if NAMES not in columns or doubled:
        shown = ",".join(rows[0].cells) or "an empty file"
        more = f"; {listing(doubled)} stands there twice" if doubled else ""
        raise ClassLabelsError(f"Class labels {path}: expected the header Names,Subtype, found {shown}{more}.")
    table = []
    for row in rows[1:]:
        if any(row.cells[len(columns) :]):
            raise ClassLabelsError(
                f"Class labels {path}, line {row.line}: expected {len(columns)} cells as in the header, found "
                f"{len(row.cells)}: {listing(row.cells, 5)}. Put a text that holds the separator in quotes."
            )
        cells = [*row.cells, *[""] * (len(columns) - len(row.cells))]
        table.append(dict(zip(columns, cells, strict=False)))
    return columns, table


def _groups(rows: Iterable[Mapping[str, str]], path: Path) -> dict[str, str]:
    """Patient of each case for which the table states one."""
    groups: dict[str, str] = {}
    for cells in rows:
        case, patient = case_name(cells[NAMES]), cells.get(PATIENT, "")
        if case and patient and groups.setdefault(case, patient) != patient:
            raise ClassLabelsError(
                f"Class labels {path}: {case}: expected one patient, found {groups[case]} and {patient}. Correct it."
            )
    return groups
