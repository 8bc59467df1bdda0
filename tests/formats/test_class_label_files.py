"""Tables of class labels as Excel, LibreOffice, pandas and R write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_3dct.errors import ClassLabelsError
from nnunet_3dct.formats.class_labels import load_class_labels
from tests.utils import write_class_table

ROWS = [("case_01", 0), ("case_02", 2), ("fall_ä", 1)]
CLASSES = {"case_01": 0, "case_02": 2, "fall_ä": 1}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
def test_separators_line_ends_and_encodings(tmp_path: Path, separator: str, newline: str, encoding: str) -> None:
    path = write_class_table(tmp_path / "c.csv", ROWS, separator=separator, newline=newline, encoding=encoding)
    assert load_class_labels(path).by_case == CLASSES


@pytest.mark.parametrize(
    "text",
    [
        "Names , Subtype \ncase_01 ,0\n case_02, 2\nfall_ä\t,1 \n",
        "NAMES,subtype\ncase_01,0\ncase_02,2\nfall_ä,1\n",
        '"Names", "Subtype"\n"case_01", "0"\n"case_02", "2"\n"fall_ä", "1"\n',
        "Names,Subtype\ncase_01,0.0\ncase_02,2.\nfall_ä,1.000\n",
        "Names;Subtype\ncase_01;0,0\ncase_02;2,0\nfall_ä;1\n",
        ",Names,Subtype\n0,case_01,0\n1,case_02,2\n2,fall_ä,1\n",
        ",Subtype\ncase_01,0\ncase_02,2\nfall_ä,1\n",
        "Unnamed: 0,Names,Subtype\n0,case_01,0\n1,case_02,2\n2,fall_ä,1\n",
        "\nNames,Subtype\n\ncase_01,0\n,\ncase_02,2\n , \nfall_ä,1\n,\n\n",
        "sep=;\nNames;Subtype\ncase_01;0\ncase_02;2\nfall_ä;1\n",
        "Names,Subtype,,\ncase_01,0,,\ncase_02,2,,,,\nfall_ä,1\n",
        'Names;Subtype;Befund\ncase_01;0;"rund; glatt"\ncase_02;2;"zwei\nZeilen"\nfall_ä;1;a, b, c\n',
        "Names\tSubtype\tNote\ncase_01\t0\ta, b; c, d\ncase_02\t2\nfall_ä\t1\n",
        "Names,Subtype\ncase_01.nii.gz,0\ncase_02.NII.GZ ,2\nfall_ä.nrrd,1\n",
        "Names,Subtype\n\u00a0case_01,0\ncase_02\u200b,2\nfall_ä,1\u00a0\n",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_forms_that_mean_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(text.encode())
    assert load_class_labels(path).by_case == CLASSES


@pytest.mark.parametrize(
    "text",
    ['{" case_01 ": 0.0, "case_02.nii.gz": "2.0", "fall_ä": " 1 "}', '{"case_01": 0, "case_02": 2e0, "fall_ä": 1}'],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_forms_that_mean_the_same(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "c.json").write_text(text, encoding=encoding)
    assert load_class_labels(tmp_path / "c.json").by_case == CLASSES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Names,Subtype\nb,0\n,1\n", "expected the name of a case, found none beside the class '1'"),
        ("Names,Subtype\nDoe, John,1\n", r"line 2: expected 2 cells as in the header, found 3: Doe, John, 1"),
        ("Names,Subtype,Subtype\na,0,1\n", "subtype stands there twice"),
        ("case,Subtype\na,0\n", "expected the header Names,Subtype, found case,Subtype"),
        ('Names,Subtype\na,0,"b\nc,1\n', "cannot be read: line"),
        ("Names,Subtype\na,123456789012\n", "a: expected an integer"),
        ("Names,Subtype,Patient\na,0,p\na,0,q\n", "a: expected one patient, found p and q"),
    ],
)
def test_tables_that_could_be_misread_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(ClassLabelsError, match=words) as caught:
        load_class_labels(tmp_path / "c.csv")
    assert str(tmp_path / "c.csv") in str(caught.value)


def test_table_of_something_else_beside_the_labels_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "truth.csv").write_text("id;age\n1;2\n")
    assert load_class_labels(tmp_path / "truth.json").by_case == {"a": 0, "b": 1}
