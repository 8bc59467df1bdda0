"""Text tables as Excel, LibreOffice, pandas and R export them: separators, encodings, blanks, blank rows."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SEPARATORS = (",", ";", "\t")
_BLANKS = " \t\r\n\v\f\u00a0\u200b\ufeff"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Row:
    """One row of a table: number of its line, from 1, and its cells without blanks around them."""

    line: int
    cells: tuple[str, ...]


def decode(data: bytes, legacy: bool = True) -> str:
    """Text of a file in UTF-8 or UTF-16, with or without a byte order mark, or in the Windows code page 1252.

    Args:
        data: content of the file.
        legacy: whether bytes that are no UTF-8 are read as code page 1252, which holds Latin-1.

    Raises:
        UnicodeDecodeError: the bytes are none of these.
    """
    if data.startswith(_UTF_16):
        return data.decode("utf-16")
    if b"\0" in data[:4] and len(data) % 2 == 0:
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if not legacy:
            raise
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # five bytes mean nothing in that code page
        return data.decode("latin-1")


def read_table(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    """Rows of a table, the header first; rows without any content are left out.

    The separator is the comma, the semicolon or the tab whose header names all ``columns``, else the one that gives
    the header most cells.

    Args:
        path: of the file.
        columns: names that the header should have, in lower case.

    Raises:
        OSError: the file cannot be read.
        ValueError: its bytes are no text, or its quotes no table.
    """
    return read_separated(path, columns)[0]


def read_separated(path: Path, columns: Sequence[str] = ()) -> tuple[list[Row], str]:
    """Rows of a table and what separates its cells; see :func:`read_table`."""
    text = decode(Path(path).read_bytes())
    stated = re.match(r"\s*\"?sep=(.)\"?\s*?(?:\r\n|\n|\r)", text)  # Excel's own way to state it
    if stated:
        return list(_parse(text[stated.end() :], stated[1], len(text[: stated.end()].splitlines()))), stated[1]
    separator = _separator(text, columns)
    return list(_parse(text, separator, 0)), separator


def _separator(text: str, columns: Sequence[str]) -> str:
    """The separator that the header is written with."""
    cells = {}
    for separator in SEPARATORS:
        try:
            cells[separator] = next(_parse(text, separator, 0), Row(0, ())).cells
        except ValueError:  # its quotes do not fit this separator
            continue
        if columns and set(columns) <= {normalized(cell) for cell in cells[separator]}:
            return separator
    return max(cells, key=lambda separator: len(cells[separator]), default=SEPARATORS[0])


def normalized(name: str) -> str:
    """A column's name for comparison: without blanks around it, in lower case."""
    return strip(name).casefold()


def strip(text: str) -> str:
    """``text`` without blanks around it, also those that cannot be seen (no-break and zero-width ones)."""
    return text.strip(_BLANKS)


def _parse(text: str, separator: str, lines_before: int) -> Iterator[Row]:
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            stripped = tuple(strip(cell) for cell in cells)
            if any(stripped):
                yield Row(lines_before + reader.line_num, stripped)
    except csv.Error as error:
        raise ValueError(f"line {lines_before + reader.line_num}: {error}") from error
