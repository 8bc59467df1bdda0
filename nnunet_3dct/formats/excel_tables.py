"""Tables that Excel has written (``.xlsx``), as the rows that a text table gives."""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.formats.text_tables import Row, strip

EXCEL_ENDINGS = (".xlsx", ".xlsm")
OLD_EXCEL_ENDINGS = (".xls", ".xlsb", ".ods")


def read_excel(path: Path, sheet: str | None = None) -> list[Row]:
    """Rows of a worksheet, the header first; rows without any content are left out.

    Numbers come as Excel shows them where that matters: 1.0 as ``1``, and 7 in the format ``000`` as ``007``.

    Args:
        path: of the workbook.
        sheet: name of the worksheet; None for the only one that holds anything.

    Raises:
        SettingsError: the file is no workbook, there is no such sheet, several sheets hold something, or a cell holds a
            formula whose result was never stored.
    """
    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and validations that openpyxl leaves out
            book = openpyxl.load_workbook(path, data_only=True)
            formulas = openpyxl.load_workbook(path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise SettingsError(
            f"{path}: expected an Excel workbook (.xlsx), found a file that cannot be read ({error})."
        ) from error
    worksheet = _worksheet(path, book, sheet)
    rows = []
    for cells in worksheet.iter_rows():
        texts = tuple(_text(cell, path, formulas[worksheet.title]) for cell in cells)
        if any(texts):
            rows.append(Row(cells[0].row, _without_empty_end(texts)))
    return rows


def _worksheet(path: Path, book: Any, sheet: str | None) -> Any:
    if sheet is not None:
        if sheet not in book.sheetnames:
            raise SettingsError(f"{path}: expected the sheet {sheet}, found {listing(book.sheetnames)}.")
        return book[sheet]
    filled = [
        worksheet
        for worksheet in book.worksheets
        if any(cell.value is not None for cells in worksheet.iter_rows() for cell in cells)
    ]
    if len(filled) != 1:
        names = listing([worksheet.title for worksheet in filled]) or "none"
        raise SettingsError(f"{path}: expected one sheet with a table, found {names}. Name the one to read.")
    return filled[0]


def _text(cell: Any, path: Path, formulas: Any) -> str:
    value = cell.value
    if value is None:
        formula = formulas[cell.coordinate].value
        if isinstance(formula, str) and formula.startswith("="):
            raise SettingsError(
                f"{path}: cell {cell.coordinate} holds a formula without a stored result. Open the file in Excel and "
                "save it, or save the table as CSV."
            )
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        zeros = re.fullmatch(r"0+", str(cell.number_format))
        if zeros and float(value).is_integer():
            return f"{int(value):0{len(zeros[0])}d}"
        return str(int(value)) if float(value).is_integer() else str(value)
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    return strip(str(value))


def _without_empty_end(texts: tuple[str, ...]) -> tuple[str, ...]:
    while texts and not texts[-1]:
        texts = texts[:-1]
    return texts
