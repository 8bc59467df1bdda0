"""Tables of classes as Excel, pandas and people write them; a bad row costs itself."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from nnunet_3dct.data.convert.class_table import Columns, Matcher, read_class_table
from nnunet_3dct.errors import SettingsError
from tests.data.convert.makers import excel
from tests.utils import write_class_table

NUMBERS = [("case_0", "0"), ("case_1", "1"), ("case_2", "2")]


def labels(path: Path, **how: object) -> dict[str, int]:
    return {row.name: row.label for row in read_class_table(path, **how).rows}  # type: ignore[arg-type]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_separators_and_encodings(separator: str, encoding: str, tmp_path: Path) -> None:
    rows = [("Müller ", "1.0 "), ("case_1.nii.gz", "0"), ("images/case_2", "2")]
    path = write_class_table(
        tmp_path / "t.csv", rows, header=("File", "Class"), separator=separator, newline="\r\n", encoding=encoding
    )
    assert labels(path) == {"Müller": 1, "case_1": 0, "case_2": 2}


def test_workbook_is_read_like_text(tmp_path: Path) -> None:
    path = excel(tmp_path / "t.xlsx", [("ID", None, " Sub-Type "), ("a", "x", 1.0), (), ("b", None, "0"), (7, "y", 2)])
    assert labels(path) == {"a": 1, "b": 0, "7": 2}


def test_leading_zeros_of_a_number_format_are_kept(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["case", "class"])
    book.active.append([7, 1])
    book.active["A2"].number_format = "000"
    book.save(tmp_path / "t.xlsx")
    assert labels(tmp_path / "t.xlsx") == {"007": 1}


def test_several_sheets_need_a_name(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["remarks"])
    book.create_sheet("classes").append(["case", "class"])
    book["classes"].append(["a", 0])
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(SettingsError, match="expected one sheet with a table, found Sheet, classes"):
        read_class_table(tmp_path / "t.xlsx")
    with pytest.raises(SettingsError, match="expected the sheet lost, found Sheet, classes"):
        read_class_table(tmp_path / "t.xlsx", sheet="lost")
    assert labels(tmp_path / "t.xlsx", sheet="classes") == {"a": 0}


def test_formula_without_a_result_is_named(tmp_path: Path) -> None:
    path = excel(tmp_path / "t.xlsx", [("case", "class"), ("a", "=1+1")])
    with pytest.raises(SettingsError, match="cell B2 holds a formula"):
        read_class_table(path)


@pytest.mark.parametrize(("name", "content"), [("t.xls", b"\xd0\xcf\x11\xe0"), ("t.xlsx", b"no workbook")])
def test_other_workbooks_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match="expected"):
        read_class_table(tmp_path / name)


def test_names_of_classes_are_numbered(tmp_path: Path) -> None:
    rows = [("a", "Solid"), ("b", "cystic "), ("c", "solid"), ("d", "n/a"), ("e", ""), ("f", "solid")]
    table = read_class_table(write_class_table(tmp_path / "t.csv", rows))
    assert table.class_names == ["cystic", "solid"]
    assert [row.label for row in table.rows] == [1, 0, 1, -1, -1, 1]
    assert "Solid, solid are taken for one class" in table.notes[0]
    assert labels(tmp_path / "t.csv", class_names=["solid", "cystic"])["a"] == 0


def test_name_that_is_none_of_the_stated_ones_costs_its_row(tmp_path: Path) -> None:
    path = write_class_table(tmp_path / "t.csv", [("a", "solid"), ("b", "sloid")])
    table = read_class_table(path, class_names=["cystic", "solid"])
    assert [row.name for row in table.rows] == ["a"]
    assert table.problems == {
        "t.csv, line 3": "'b': expected a class (one of cystic, solid), found 'sloid'; the row is left out"
    }


def test_classes_from_one_are_numbered_from_zero(tmp_path: Path) -> None:
    table = read_class_table(write_class_table(tmp_path / "t.csv", [("a", "1"), ("b", "3"), ("c", "2")]))
    assert table.class_names == ["1", "2", "3"] and [row.label for row in table.rows] == [0, 2, 1]
    assert "numbered from 0 here" in table.notes[0]


@pytest.mark.parametrize(
    ("row", "problem"),
    [(("../../evil", "1"), "expected the name of a case"), (("x/../y", "1"), "expected the name of a case"),
     (("", "1"), "expected the name of a case"), (("d", "1.5"), "expected a class"),
     (("d", "solid"), "expected a class"), (("d", "-3"), "expected a class"),
     (("case_0", "2"), "listed in line 2 too")],
)  # fmt: skip
def test_bad_row_is_left_out_and_named(row: tuple[str, str], problem: str, tmp_path: Path) -> None:
    table = read_class_table(write_class_table(tmp_path / "t.csv", [*NUMBERS, row]))
    assert problem in table.problems["t.csv, line 5"]
    assert {"case_1", "case_2"} <= {found.name for found in table.rows}


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    path = write_class_table(tmp_path / "t.csv", [("a", "5", "1", "test")], header=("Kennung", "Patient", "Art", "Set"))
    with pytest.raises(SettingsError, match="column with the classes, such as Names and Subtype, found Kennung"):
        read_class_table(path)
    (row,) = read_class_table(path, Columns("kennung", "ART")).rows
    assert (row.name, row.label, row.patient, row.part) == ("a", 1, "5", "Ts")
    with pytest.raises(SettingsError, match="expected one column lost"):
        read_class_table(path, Columns("lost", "Art"))


def test_matcher_is_liberal_but_never_guesses(tmp_path: Path) -> None:
    rows = [("1", "0"), ("Case_B", "1"), ("c_0000", "2"), ("twin", "0"), ("TWIN", "1")]
    matcher = Matcher(read_class_table(write_class_table(tmp_path / "t.csv", rows)))
    found = {name: matcher.find(name) for name in ("001", "case_b", "c", "twin", "Twin", "lost")}
    assert {name: row.label if row else None for name, row in found.items()} == {
        "001": 0, "case_b": 1, "c": 2, "twin": 0, "Twin": None, "lost": None,
    }  # fmt: skip
    assert [row.name for row in matcher.unused()] == ["TWIN"]


def test_identifiers_are_not_quoted(tmp_path: Path) -> None:
    rows = [("KH-4711", "a/b"), ("../4711", "0"), ("KH-4712", "0"), ("KH-4712", "1"), ("KH-4713", "0")]
    table = read_class_table(write_class_table(tmp_path / "t.csv", rows), hide_names=True)
    assert len(table.problems) == 3 and not any("47" in text for text in table.problems.values())
