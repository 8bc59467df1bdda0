"""Tables of covariates: as hospitals write them, and what cannot be used named by case, column and content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.clinical import (
    check_clinical_table,
    misspelt_rows,
    read_clinical_in,
    read_clinical_table,
    read_dataset_clinical,
    require_clinical_table,
)

CASES = [f"case_{n:03d}" for n in range(12)]
AGES = [50.5, 61, 72, 43, 64, 75, 56, 67, 78, 49, 60, 71]


def write(folder: Path, columns: Mapping[str, list[object]], separator: str = ",", cases: list[str] = CASES) -> Path:
    """A table of the first cases with these columns."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(cases, *columns.values(), strict=False)
    lines = [separator.join(["Names", *columns]), *(separator.join(map(str, row)) for row in rows)]
    path = folder / "clinical.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(SettingsError) as caught:
        read_clinical_table(path, **options)  # type: ignore[arg-type]
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_kinds_are_found_and_missing_values_are_none(tmp_path: Path) -> None:
    table = read_clinical_table(
        write(
            tmp_path,
            {
                "age": [50.5, "n/a", "NA", "", "unknown", "?", 61, "NaN", "none", "-", ".", "1e2"],
                "Sex": ["F", "M", "n/a", "", "unknown", "?", "F", "M", "m", "F", "F", "M"],
                "symptoms": ["none", "pain"] * 6,
                "stage": ["1", "2a", "2b", "3x"] * 3,
            },
        )
    )
    assert table.kinds == {"age": "number", "Sex": "category", "symptoms": "category", "stage": "category"}
    values = {column: [table.by_case[case][column] for case in CASES] for column in table.columns}
    assert values["age"] == [50.5, *[None] * 5, 61.0, *[None] * 4, 100.0]
    assert values["Sex"] == ["F", "M", *[None] * 4, "F", "M", "m", "F", "F", "M"]
    assert set(values["symptoms"]) == {"none", "pain"} and set(values["stage"]) == {"1", "2a", "2b", "3x"}


@pytest.mark.parametrize(
    "content",
    [
        "Names,age,sex\na,67.5,F\nb,70,M\n",
        "Names;age;sex\r\na;67,5;F\r\nb;70,0;M\r\n",
        "Names\tage\tsex\na\t67,5\tF\nb\t70\tM\n",
        "\ufeffnames , age,sex\na.nii.gz,67.5 , F\n b ,70.0,M\n",
        "sep=;\nNames;age;sex\na;67.5;F\nb;70;M\n",
        ",age,sex\na,67.5,F\nb,70,M\n",
        ",Names,age,sex\n0,a,67.5,F\n1,b,70,M\n",
        "Unnamed: 0,Names,age,sex\n0,a,67.5,F\n1,b,70,M\n",
        "Names,Patient,age,patient_id,sex\na,p1,67.5,7,F\nb,p2,70,8,M\n",
        "age,Names,sex,,\n67.5,a,F,,\n,,,,\n70,b,M\n",
        '"Names","age","sex"\n"a","67.5","F"\n"b","70","M"\n',
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_forms_that_mean_the_same(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clinical.csv"
    path.write_bytes(content.encode())
    table = read_clinical_table(path)
    assert table.by_case == {"a": {"age": 67.5, "sex": "F"}, "b": {"age": 70.0, "sex": "M"}}
    assert table.kinds == {"age": "number", "sex": "category"}


def test_text_in_a_number_column_is_named_with_case_column_and_content(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, {"age": [*AGES[:9], "67y", "<5", "inf"], "sex": ["F", "M"] * 6}))
    for case, text in zip(CASES[9:], ("67y", "<5", "inf"), strict=True):
        assert f"{case}: column age: expected a number, found '{text}'" in message
    assert "3 problems" in message and "leave the cell empty" in message and "sex" not in message


def test_comma_in_a_number_is_refused_where_it_may_part_thousands(tmp_path: Path) -> None:
    path = tmp_path / "clinical.csv"
    path.write_text('Names,ca\na,"1,234"\nb,17\nc,18\n')
    assert "a: column ca: expected a number, found '1,234'" in refusal(path)
    path.write_text("Names;ca\na;1,5\nb;1.5\nc;18\n")
    assert "column ca: expected one decimal mark, found 1.5, 1,5" in refusal(path)
    path.write_text("Names;ca\na;1.234,5\nb;17\nc;18\n")
    assert "a: column ca: expected a number, found '1.234,5'" in refusal(path)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("date", [f"2021-03-{n:02d}" for n in range(1, 13)], "12 different texts in 12 cases, such as 2021-03-01"),
        ("note", ["a", "b", "c", "d", "e", "f", "g", "", "", "", "g", "g"], "7 different texts in 9 cases"),
        ("number", [*range(1, 13)], "running numbers, as an identifier has them"),
        ("row", [*range(12)], "running numbers, as an identifier has them"),
        ("Study ID", [n * n for n in range(12)], "12 different numbers in 12 cases, as an identifier has them"),
        ("MRN", [n * n for n in range(12)], "12 different numbers in 12 cases, as an identifier has them"),
        ("ca19-9", [""] * 12, "found none in 12 rows; remove the column"),
        ("ca19-9", ["n/a"] * 12, "found none in 12 rows; remove the column"),
    ],
)
def test_column_of_no_use_is_named(tmp_path: Path, column: str, values: list[object], words: str) -> None:
    message = refusal(write(tmp_path, {"age": AGES, column: values}))
    assert f"column {column}: expected" in message and words in message and "column age" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Names,age\na,1\nb,2\na,1\n", "a: expected one row, found the lines 2 and 4"),
        ("Names,age\na,1\nb,2\na.nii.gz,3\n", "a: expected one row, found the lines 2 and 4"),
        ("Names,age,Age \na,1,2\n", "column age stands there twice"),
        ("Names,Names,age\na,a,2\n", "column names stands there twice"),
        ("Names,age\na,1\n,2\n", "line 3: expected the name of a case, found none"),
        ("Names,age\nDoe, John,1\n", "line 2: expected 2 cells as in the header, found 3: Doe, John, 1"),
        ("Names,age,\na,1,F\n", "line 2: expected a name over every column that is used"),
        ("case,age\na,1\n", "expected the header Names,<covariate>,..., such as Names,age,sex, found case,age"),
        ("", "found an empty file"),
        ("Names,age\n", "expected a row for each case, found none"),
        ("Names,Patient\na,p\n", "expected a column beside Names, such as age, found none"),
        ('Names,age\na,"b\nc,1\n', "cannot be read: line"),
    ],
)
def test_table_that_could_be_misread_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "clinical.csv"
    path.write_text(content)
    assert words in refusal(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "clinical.csv")


def test_ages_that_rise_by_one_are_no_identifier(tmp_path: Path) -> None:
    assert read_clinical_table(write(tmp_path, {"age": [*range(50, 62)]})).kinds == {"age": "number"}


def test_all_problems_stand_in_one_message(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, {"age": [*AGES[:11], "old"], "when": [f"day {n}" for n in range(12)]}))
    assert "2 problems" in message and "column age" in message and "column when" in message


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 2] * 4,
        ["serous", "mucinous", "ductal"] * 4,
        ["B", "C", "A"] * 3 + ["", "", ""],
        ["", "x", "y"] * 4,
        [1, 3, 5, 2, 4, 6] * 2,
        ["Site A", "Site B", "Site C", "site a", "site b", "Site D"] * 2,
    ],
    ids=["the class", "its name", "partly missing", "missing is a class", "finer numbers", "finer categories"],
)
def test_column_that_is_the_class_is_named(tmp_path: Path, values: list[object]) -> None:
    classes = {case: n % 3 for n, case in enumerate(CASES)}
    table = read_clinical_table(write(tmp_path, {"age": AGES, "histology": values, "sex": ["F", "M"] * 6}))
    problems = check_clinical_table(table, CASES, classes)
    assert len(problems) == 1 and "column histology" in problems[0] and "the class under another name" in problems[0]
    with pytest.raises(SettingsError, match=r"1 problem\..*\n  column histology"):
        require_clinical_table(table, CASES, classes)
    swapped = {**classes, CASES[0]: 1, CASES[4]: 0}  # two cases are enough to make it a covariate like others
    assert check_clinical_table(table, CASES, swapped) == []
    unknown = {**dict.fromkeys(CASES, -1), CASES[0]: 0, CASES[1]: 1}
    assert check_clinical_table(table, CASES, unknown) == []


@pytest.mark.parametrize("values", [[0, 2, 1], ["0", "2.0", "1."], ["0", "n/a", "1", "0"]])
def test_the_classes_themselves_are_named_in_the_smallest_table(tmp_path: Path, values: list[object]) -> None:
    table = read_clinical_table(write(tmp_path, {"sub": values, "age": AGES}))
    classes = {CASES[0]: 0, CASES[1]: 2, CASES[2]: 1, CASES[3]: 0}
    assert ["column sub" in problem for problem in check_clinical_table(table, CASES, classes)] == [True]


def test_column_stated_for_one_class_alone_is_named(tmp_path: Path) -> None:
    classes = {case: n % 2 for n, case in enumerate(CASES)}
    table = read_clinical_table(write(tmp_path, {"margin": [age if n % 2 else "" for n, age in enumerate(AGES)]}))
    assert "column margin" in check_clinical_table(table, CASES, classes)[0]


def test_cases_of_unknown_class_do_not_hide_a_column_that_is_the_class(tmp_path: Path) -> None:
    table = read_clinical_table(write(tmp_path, {"histology": ["a", "b", "c"] * 4}))
    classes = {case: n % 3 if n < 9 else -1 for n, case in enumerate(CASES)}
    assert "column histology" in check_clinical_table(table, CASES, classes)[0]


def test_class_column_is_named_even_where_it_contradicts_the_labels(tmp_path: Path) -> None:
    table = read_clinical_table(write(tmp_path, {"Subtype": [0, 1, 1, 2] * 3, "age": AGES}))
    (problem,) = check_clinical_table(table, CASES, {case: n % 3 for n, case in enumerate(CASES)})
    assert problem.startswith("column Subtype:")


def test_unknown_cases_are_named_with_what_was_probably_meant(tmp_path: Path) -> None:
    rows = ["Case-3", "case_004_0000", "case_01O", "somebody else"]
    table = read_clinical_table(write(tmp_path, {"age": AGES}, cases=[*CASES[:2], *rows]))
    problems = check_clinical_table(table, CASES, {})
    words = ["did you mean case_003?", "did you mean case_004?", "did you mean case_01", "remove the row"]
    for row, problem, word in zip(rows, problems, words, strict=True):
        assert problem.startswith(f"{row}: expected a case of the dataset, found none") and word in problem
    assert misspelt_rows(table, CASES) == {"Case-3": "case_003", "case_004_0000": "case_004"}
    assert misspelt_rows(table, CASES[:3]) == {}


def test_case_without_a_row_is_allowed_and_misses_everything(tmp_path: Path) -> None:
    table = read_clinical_table(write(tmp_path, {"age": AGES, "sex": ["F", "M"] * 6}, cases=CASES[1:]))
    assert check_clinical_table(table, CASES, {}) == []
    assert table.without_row(CASES) == ["case_000"]
    assert table.of("case_000") == {"age": None, "sex": None} and table.of("case_001")["age"] == 50.5


def test_columns_of_a_model_are_read_in_its_kinds_from_any_small_table(tmp_path: Path) -> None:
    kinds = {"age": "number", "grade": "category"}
    path = write(tmp_path, {"Grade": ["2"], "ward": ["x"], "AGE": [67], "date": ["2021-03-04"]})
    table = read_clinical_table(path, kinds=kinds)  # type: ignore[arg-type]
    assert table.by_case == {"case_000": {"age": 67.0, "grade": "2"}} and table.unused == ("ward", "date")
    assert read_clinical_table(write(tmp_path, {"age": [""], "grade": [""]}), kinds=kinds).of("case_000") == {
        "age": None,
        "grade": None,
    }
    message = refusal(write(tmp_path, {"age": ["old"], "grade": ["x"]}), kinds=kinds)
    assert "case_000: column age: expected a number, found 'old'" in message
    message = refusal(write(tmp_path, {"sex": ["F"], "grade": ["x"]}), kinds=kinds)
    assert "expected the columns age, grade" in message and "age not found among sex, grade" in message


def test_table_lies_where_the_class_labels_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, preprocessed = tmp_path / "raw", tmp_path / "preprocessed"
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    assert read_dataset_clinical("Dataset001_A") is None
    first = write(raw / "Dataset001_A", {"age": AGES})
    table = read_dataset_clinical("Dataset001_A")
    assert table is not None and table.source == first
    second = write(preprocessed / "Dataset001_A", {"age": AGES})
    table = read_dataset_clinical("Dataset001_A")
    assert table is not None and table.source == second
    write(raw / "Dataset001_A", {"age": [*AGES[:11], 99]})
    with pytest.raises(SettingsError, match="differ") as caught:
        read_clinical_in([preprocessed / "Dataset001_A", raw / "Dataset001_A"])
    assert re.search(r"in the cases case_011\.", str(caught.value))
    assert str(first) in str(caught.value) and str(second) in str(caught.value)
