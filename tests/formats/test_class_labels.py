"""Case-level class labels: reading them, finding them, and comparing them with a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_3dct.errors import ClassLabelsError
from nnunet_3dct.formats.class_labels import (
    UNKNOWN,
    ClassLabels,
    check_class_labels,
    check_class_names,
    find_class_labels,
    load_class_labels,
    read_dataset_labels,
    require_class_labels,
)
from nnunet_3dct.settings import Settings
from nnunet_3dct.training.preflight import read_class_labels
from tests.utils import write_class_labels, write_class_table


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


def labels_of(*classes: int) -> ClassLabels:
    """Cases ``case_0``, ``case_1``, ... of the given classes."""
    return ClassLabels({f"case_{i}": label for i, label in enumerate(classes)}, Path("classification.json"))


# reading


def test_json_holds_integers_or_integer_strings(tmp_path):
    path = write(tmp_path / "classification.json", '{"a": 0, "b": "2", "c": " 1 ", "d": -1, "e": "-1"}')
    labels = load_class_labels(path)
    assert labels.by_case == {"a": 0, "b": 2, "c": 1, "d": UNKNOWN, "e": UNKNOWN}
    assert labels.source == path
    assert labels.num_classes == 3


def test_csv_names_may_carry_the_file_ending(tmp_path):
    text = "Names,Subtype\na.nii.gz,0\nb.nrrd,2\nquiz_037,1\n\nc.d.mha,-1\n"
    labels = load_class_labels(write(tmp_path / "labels.csv", text))
    assert labels.by_case == {"a": 0, "b": 2, "quiz_037": 1, "c.d": UNKNOWN}


def test_csv_columns_may_come_in_any_order_among_others(tmp_path):
    path = write(tmp_path / "labels.CSV", "Age,Subtype,Names\r\n61,1,a\r\n70,0,b\r\n")
    assert load_class_labels(path).by_case == {"a": 1, "b": 0}


@pytest.mark.parametrize(("name", "text"), [("c.json", '{"a": 1}'), ("c.csv", "Names,Subtype\na,1\n")])
def test_byte_order_mark_of_spreadsheets_is_ignored(tmp_path, name, text):
    assert load_class_labels(write(tmp_path / name, text, "utf-8-sig")).by_case == {"a": 1}


@pytest.mark.parametrize(
    "value", ["0.5", "true", "false", "null", "NaN", "1e400", '"1.5"', '"--1"', '""', "-2", "[1]", "{}"]
)
def test_json_value_that_is_no_class_is_named_with_its_case(tmp_path, value):
    path = write(tmp_path / "classification.json", f'{{"good": 0, "bad_case": {value}}}')
    with pytest.raises(ClassLabelsError) as caught:
        load_class_labels(path)
    assert str(path) in str(caught.value)
    assert "bad_case: expected an integer >= 0 (or -1 for unknown), found" in str(caught.value)
    assert "good" not in str(caught.value)


@pytest.mark.parametrize("value", ["1.5", "", "nan", "malignant", "-2", "-1.5"])
def test_csv_value_that_is_no_class_is_named_with_its_case(tmp_path, value):
    with pytest.raises(ClassLabelsError, match=f"bad_case: expected an integer.*found '{value}'"):
        load_class_labels(write(tmp_path / "c.csv", f"Names,Subtype\ngood,0\nbad_case.nii.gz,{value}\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"a": 0, "b": 1, "a": 1}'),
        ("c.json", '{"a": 0, "b": 1, "a.nii.gz": 1}'),
        ("c.json", '{"a": 0, "b": 1, " a": -1}'),
        ("c.csv", "Names,Subtype\na,0\nb,1\na.nii.gz,2\n"),
    ],
)
def test_case_listed_with_two_classes_is_refused_and_named(tmp_path, name, text):
    with pytest.raises(ClassLabelsError, match=r"a: listed more than once, with the classes 0 and (1|2|-1)"):
        load_class_labels(write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.json", '{"a": 0, "b": 1, "a.nii.gz": "0"}'), ("c.csv", "Names,Subtype\na,0\nb,1\na.nii.gz,0.0\n")],
)
def test_case_listed_twice_with_one_class_is_read_once(tmp_path, name, text):
    assert load_class_labels(write(tmp_path / name, text)).by_case == {"a": 0, "b": 1}


def test_all_bad_entries_are_in_one_message(tmp_path):
    path = write(tmp_path / "classification.json", '{"a": 0.5, "b": 0, "b": 1, "c": true}')
    with pytest.raises(ClassLabelsError, match="3 bad entries") as caught:
        load_class_labels(path)
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("c.json", '{"a": ', "not valid JSON"),
        ("c.json", "[]", "expected an object .* found list"),
        ("c.json", '["a", 1]', "expected an object .* found list"),
        ("c.json", "{}", "expected at least one case"),
        ("c.csv", "case,label\na,0\n", "header Names,Subtype, found case,label"),
        ("c.csv", "", "header Names,Subtype"),
        ("c.csv", "Names,Subtype\n", "expected at least one case"),
    ],
)
def test_malformed_file_is_named(tmp_path, name, text, part):
    path = write(tmp_path / name, text)
    with pytest.raises(ClassLabelsError, match=part) as caught:
        load_class_labels(path)
    assert str(path) in str(caught.value)


def test_missing_or_undecodable_file_is_named(tmp_path):
    with pytest.raises(ClassLabelsError, match=r"absent\.json cannot be read"):
        load_class_labels(tmp_path / "absent.json")
    # JSON is UTF-8 by its standard; a guess could spoil the names of cases
    with pytest.raises(ClassLabelsError, match=r"latin\.json cannot be read"):
        load_class_labels(write(tmp_path / "latin.json", '{"ä": 1}', "latin-1"))


# comparing with a dataset


def test_sound_labels_have_no_problem():
    labels = labels_of(0, 1, 2, 1)
    cases = ["case_0", "case_3"]
    assert check_class_labels(labels, cases) == check_class_labels(labels, cases, 3) == []
    require_class_labels(labels, cases, 3)


def test_unlabelled_cases_and_empty_classes_are_listed_in_one_message():
    with pytest.raises(ClassLabelsError) as caught:
        require_class_labels(labels_of(0, 3, 0), ["case_0", "new_2", "new_1"])
    text = str(caught.value)
    assert "classification.json do not fit the dataset (3 cases, 4 problems)" in text
    assert [line.strip()[:7] for line in text.splitlines()[1:]] == [
        "new_1: ",
        "new_2: ",
        "class 1",
        "class 2",
    ]


def test_one_based_labels_are_recognised():
    (problem,) = check_class_labels(labels_of(1, 2, 3), ["case_0"])
    assert problem.startswith("class 0 has no case although class 3 exists; labels are 0-based")
    problems = check_class_labels(labels_of(1, 2, 3), ["case_0"], num_classes=3)
    assert problems == ["case_2: label 3 is out of range, NNUNETV2_MT_NUM_CLS=3 allows 0 to 2"]


def test_empty_class_is_accepted_when_the_number_of_classes_is_stated():
    assert check_class_labels(labels_of(0, 2), ["case_0"], num_classes=3) == []


def test_more_classes_than_the_labels_hold_are_refused():
    (problem,) = check_class_labels(labels_of(0, 1), ["case_0"], num_classes=3)
    assert "NNUNETV2_MT_NUM_CLS=3 but the labels hold only the classes 0 to 1; set it to 2" in problem


def test_fewer_classes_than_the_labels_hold_name_every_case_beyond():
    problems = check_class_labels(labels_of(0, 1, 2, 2), ["case_0"], num_classes=2)
    assert [problem.split(":")[0] for problem in problems] == ["case_2", "case_3"]


@pytest.mark.parametrize("classes", [(0, 0), (-1, -1), (0, -1)])
def test_fewer_than_two_classes_are_refused(classes):
    assert any("at least 2 classes" in p for p in check_class_labels(labels_of(*classes), ["case_0"]))


def test_unknown_class_needs_no_class_and_counts_for_none():
    labels = labels_of(0, -1, 1, -1, 1)
    assert check_class_labels(labels, list(labels.by_case)) == []
    assert labels.num_classes == 2
    assert labels.counts(labels.by_case) == [1, 2]


def test_counts_cover_the_asked_cases_and_classes():
    labels = labels_of(0, 1, 1, 0)
    assert labels.counts(["case_0", "case_1", "elsewhere"]) == [1, 1]
    assert labels.counts(["case_1", "case_2"], num_classes=3) == [0, 2, 0]


# finding the file


def test_first_folder_wins_and_json_comes_before_csv(tmp_path):
    first, second = tmp_path / "preprocessed", tmp_path / "raw"
    first.mkdir()
    in_second = write(second / "classification.json", '{"a": 1}')
    assert find_class_labels([first, second]) == in_second
    csv_file = write(first / "classification.csv", "Names,Subtype\na,0\n")
    assert find_class_labels([first, second]) == csv_file
    json_file = write(first / "classification.json", '{"a": 0}')
    assert find_class_labels([first, second]) == json_file


def test_missing_labels_name_both_folders_and_show_the_form(tmp_path):
    with pytest.raises(ClassLabelsError) as caught:
        find_class_labels([tmp_path / "preprocessed", tmp_path / "raw"])
    for part in (
        str(tmp_path / "preprocessed"),
        str(tmp_path / "raw"),
        "classification.json",
        '{"case_0001": 0',
    ):
        assert part in str(caught.value)


def test_training_looks_beside_the_preprocessed_then_the_raw_dataset(tmp_path, monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_raw"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    preprocessed, raw = (tmp_path / v / "Dataset001_X" for v in ("nnUNet_preprocessed", "nnUNet_raw"))
    write(preprocessed / "splits_final.json", json.dumps([{"train": ["a"], "val": ["b"]}]))
    write(raw / "classification.json", '{"a": 0, "b": 1}')
    plans = {"dataset_name": "Dataset001_X"}
    assert read_class_labels(plans, "3d_fullres", 0, Settings()).source == raw / "classification.json"
    write(preprocessed / "classification.csv", "Names,Subtype\na,0\nb,1\n")
    labels = read_class_labels(plans, "3d_fullres", 0, Settings())
    assert labels.source == preprocessed / "classification.csv"
    assert labels.by_case == {"a": 0, "b": 1}


@pytest.fixture
def both(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The preprocessed and the raw folder of ``Dataset001_X``."""
    for variable in ("nnUNet_preprocessed", "nnUNet_raw"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path / "nnUNet_preprocessed" / "Dataset001_X", tmp_path / "nnUNet_raw" / "Dataset001_X"


@pytest.mark.parametrize(
    ("older", "lines"),
    [
        ({"a": 1, "b": 0, "c": 1}, ["a: class 1 in the first, 0 in the second", "b: class 0 in the first, 1 in"]),
        ({"a": 0, "b": 1}, ["c: class not listed in the first, 1 in the second"]),
        ({"a": 0, "b": 1, "c": 1, "d": 0}, ["d: class 0 in the first, not listed in the second"]),
        ({"a": 0, "b": 1, "c": -1}, ["c: class -1 in the first, 1 in the second"]),
    ],
)
def test_tables_that_differ_are_refused_with_both_files_and_the_cases(both, older, lines):
    first, second = write_class_labels(both[0], older), write_class_labels(both[1], {"a": 0, "b": 1, "c": 1})
    with pytest.raises(ClassLabelsError) as caught:
        read_dataset_labels("Dataset001_X")
    text = str(caught.value)
    assert f"{first} and {second}" in text and f"found {len(lines)} cases that differ" in text
    assert "Delete the file that is out of date" in text and all(line in text for line in lines)


def test_tables_of_the_same_content_are_fine_whatever_their_form(both):
    write_class_table(both[0] / "classification.csv", [("b.nii.gz", "1.0"), ("a", 0)], separator=";")
    write_class_labels(both[1], {"a": "0", "b": 1})
    labels = read_dataset_labels("Dataset001_X")
    assert labels.by_case == {"a": 0, "b": 1} and labels.source == both[0] / "classification.csv"


def test_long_lists_of_differences_are_cut(both):
    write_class_labels(both[0], {f"case_{n:03d}": 0 for n in range(50)})
    write_class_labels(both[1], {f"case_{n:03d}": 1 for n in range(50)})
    with pytest.raises(
        ClassLabelsError, match=r"found 50 cases that differ(.|\n)*case_009(.|\n)*and 40 more"
    ) as caught:
        read_dataset_labels("Dataset001_X")
    lines = str(caught.value).splitlines()
    assert len(lines) == 12 and "case_009" in lines[-2] and lines[-1] == "  and 40 more"


def test_json_and_csv_in_one_folder_must_agree(both):
    path = write_class_labels(both[1], {"a": 0, "b": 1})
    table = write_class_table(path.with_suffix(".csv"), [("a", 0), ("b", 0)])
    with pytest.raises(ClassLabelsError, match="b: class 1 in the first, 0 in the second") as caught:
        read_dataset_labels("Dataset001_X")
    assert f"{path} and {table}" in str(caught.value)
    with pytest.raises(ClassLabelsError, match="differ"):
        load_class_labels(path)
    write_class_table(table, [("a", 0), ("b", 1)])
    assert read_dataset_labels("Dataset001_X").by_case == {"a": 0, "b": 1}


def test_csv_beside_the_json_may_hold_patients_alone(both):
    path = write_class_labels(both[1], {"a": 0, "b": 1})
    write_class_table(path.with_suffix(".csv"), [("p1", "a.nii.gz"), ("p1", " b")], header=("PATIENT", " names"))
    assert read_dataset_labels("Dataset001_X").groups == {"a": "p1", "b": "p1"}
    rows = [("a", "", "p1"), ("b", 1, "p2"), ("elsewhere", "", "p3")]  # classes left blank are stated by the JSON
    write_class_table(path.with_suffix(".csv"), rows, header=("Names", "Subtype", "Patient"))
    assert read_dataset_labels("Dataset001_X").groups["b"] == "p2"


def test_patients_come_from_the_folder_that_states_them(both):
    write_class_labels(both[0], {"a": 0, "b": 1})
    rows = [("a", 0, "p1"), ("b", 1, "p2")]
    table = write_class_table(both[1] / "classification.csv", rows, header=("Names", "Subtype", "Patient"))
    labels = read_dataset_labels("Dataset001_X")
    assert labels.groups == {"a": "p1", "b": "p2"} and labels.source == both[0] / "classification.json"
    (both[0] / "classification.csv").write_text(table.read_text().replace("p2", "p1"))
    with pytest.raises(ClassLabelsError, match="b: patient p1 in the first, p2 in the second"):
        read_dataset_labels("Dataset001_X")


def test_a_label_under_a_similar_name_is_pointed_out():
    labels = ClassLabels({"CASE_1": 0, "case_2_0000": 1, "case_3": 0}, Path("classification.json"))
    problems = check_class_labels(labels, ["case_1", "case_2", "case_3", "case_4"])
    assert ["CASE_1 instead" in problems[0], "case_2_0000 instead" in problems[1]] == [True, True]
    assert "without channel number" in problems[1] and "set it to -1" in problems[2] and len(problems) == 3


# names of the classes


def test_names_of_as_many_classes_pass():
    assert check_class_names(["solid", "cystic"], 2, "dataset.json") == ["solid", "cystic"]
    assert check_class_names(None, 2, "dataset.json") is None


@pytest.mark.parametrize(
    ("names", "number", "words"),
    [
        (["solid", "cystic"], 3, "expected 3 names, since the classes are 0 to 2, found 2: solid, cystic"),
        (["a", "b", "c"], 2, "expected 2 names, since the classes are 0 to 1, found 3: a, b, c"),
        ([], 2, "expected 2 names"),
        (["a", "a "], 2, "Give each class its own name"),
        (["a", ""], 2, "a list of 2 different names"),
        (["a", 1], 2, r'found \["a", 1\]'),
        ({"0": "a", "1": "b"}, 2, "a list of 2 different names"),
        ("ab", 2, "a list of 2 different names"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_both_numbers(names, number, words):
    with pytest.raises(ClassLabelsError, match=f"^some.json: class_names: .*{words}"):
        check_class_names(names, number, "some.json")


def test_case_of_the_fold_without_a_label_stops_training(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    folder = tmp_path / "Dataset001_X"
    write(folder / "splits_final.json", json.dumps([{"train": ["a", "b"], "val": ["forgotten"]}]))
    write(folder / "classification.json", '{"a": 0, "b": 1}')
    with pytest.raises(ClassLabelsError, match="forgotten: has no label"):
        read_class_labels({"dataset_name": "Dataset001_X"}, "3d_fullres", 0, Settings())
