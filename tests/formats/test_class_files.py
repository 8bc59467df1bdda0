"""Class files and the two tables made from them: what is written can be read, and nothing stale stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from nnunet_3dct.errors import ClassLabelsError, EvaluationError, NNUNet3DCTError
from nnunet_3dct.formats.class_files import (
    class_file,
    class_file_path,
    classified_in,
    has_class_predictions,
    read_class_file,
    read_predictions,
    write_class_file,
    write_class_tables,
)

PROBABILITIES = [0.125, 0.625, 0.25]
NAMES = ["solid", 'cys"tic, large', "größe\nzwei"]


def write(folder: Path, case: str, probabilities: list[float] = PROBABILITIES, **content: object) -> None:
    made = class_file(probabilities, None, folds=[0], head_weights={"0": "abc"})
    write_class_file({**made, **content}, folder, case)  # type: ignore[typeddict-item]


def only(table: Path, folder: Path) -> Path:
    """A new folder that holds a copy of one table."""
    folder.mkdir()
    (folder / table.name).write_bytes(table.read_bytes())
    return folder


def test_class_file_is_read_as_it_was_made(tmp_path: Path) -> None:
    content = class_file(PROBABILITIES, NAMES, temperature=2.0, review_below=0.9, head_weights={"0": "abc"}, tta="full")
    content["target_voxels"], content["evidence"] = 12, "a.nii.gz"
    write_class_file(content, tmp_path, "a")
    found = read_class_file(class_file_path(tmp_path, "a"))
    assert (found.label, found.num_classes, found.class_names) == (1, 3, tuple(NAMES))
    assert found.probabilities == pytest.approx(softmax(np.log(PROBABILITIES) / 2))
    assert (found.review, found.target_voxels, found.evidence) == (True, 12, "a.nii.gz")
    assert found.head_weights == {"0": "abc"} and found.produced_by["tta"] == "full"


def test_what_a_foreign_file_does_not_state_is_none(tmp_path: Path) -> None:
    class_file_path(tmp_path, "a").write_text('{"pred": 1}')
    found = read_class_file(class_file_path(tmp_path, "a"))
    assert (found.label, found.probabilities, found.num_classes, found.class_names) == (1, None, None, None)
    assert (found.review, found.evidence, found.target_voxels, found.head_weights) == (None, None, None, {})


@pytest.mark.parametrize("text", ["", "null", "[1]", "{}", '{"probs": [0.5, 0.6]}', '{"pred": -1}', '{"logits": []}'])
def test_damaged_class_file_is_named(tmp_path: Path, text: str) -> None:
    class_file_path(tmp_path, "a").write_text(text)
    with pytest.raises(EvaluationError, match=r"a_classification\.json"):
        read_class_file(class_file_path(tmp_path, "a"))


def test_hidden_files_are_no_cases(tmp_path: Path) -> None:
    assert not has_class_predictions(tmp_path)
    class_file_path(tmp_path, "._a").write_bytes(b"\0\5\x16\7")
    assert not has_class_predictions(tmp_path)
    write(tmp_path, "a")
    assert classified_in(tmp_path) == ["a"] == list(read_predictions(tmp_path)[0])
    assert has_class_predictions(tmp_path)


@pytest.mark.parametrize("names", [None, NAMES, ["a", "b"], ["a", "a", "b"], ["a", "", "b"], []])
def test_tables_can_be_read_whatever_names_the_class_files_hold(names: list[str] | None, tmp_path: Path) -> None:
    for n, case in enumerate(("a", "b", "c.d")):
        write(tmp_path, case, np.roll(PROBABILITIES, n).tolist(), class_names=names)
    write_class_tables(tmp_path, ["a", "b", "c.d"], ".nii.gz")
    expected = {"a": 1, "b": 2, "c.d": 0}
    for kept in ("subtype_probabilities.csv", "subtype_results.csv"):
        found, source = read_predictions(only(tmp_path / kept, tmp_path / kept.partition(".")[0]))
        assert {case: prediction.label for case, prediction in found.items()} == expected and source == kept
    header = (tmp_path / "subtype_probabilities.csv").read_text()
    assert ("class_0,class_1,class_2" in header) == (names is not NAMES)


def test_names_of_another_number_are_refused_when_a_class_file_is_made() -> None:
    with pytest.raises(ClassLabelsError, match="expected 3 names, since the classes are 0 to 2, found 2"):
        class_file(PROBABILITIES, ["a", "b"])
    assert "class_names" not in class_file(PROBABILITIES, None)
    with pytest.raises(NNUNet3DCTError, match="expected finite numbers"):
        class_file([0.5, float("nan"), 0.5], None)


def test_tables_hold_the_given_cases_and_no_others(tmp_path: Path) -> None:
    for case in ("a", "b", "former"):
        write(tmp_path, case)
    write_class_tables(tmp_path, ["b", "a", "failed"], ".nii.gz")
    assert (tmp_path / "subtype_results.csv").read_text() == "Names,Subtype\na.nii.gz,1\nb.nii.gz,1\n"
    assert "former" not in (tmp_path / "subtype_probabilities.csv").read_text()


def test_tables_of_a_former_run_go_when_every_case_failed(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write_class_tables(tmp_path, ["a"], ".nii.gz")
    class_file_path(tmp_path, "a").unlink()
    write_class_tables(tmp_path, ["a"], ".nii.gz")
    assert list(tmp_path.iterdir()) == []
    write_class_tables(tmp_path, [], ".nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_cases_of_models_with_different_classes_make_no_table(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path, "b", [0.5, 0.5])
    with pytest.raises(EvaluationError, match=r"different numbers of classes: 3 \(a\), 2 \(b\)"):
        write_class_tables(tmp_path, ["a", "b"], ".nii.gz")
    assert not list(tmp_path.glob("*.csv"))


def test_damaged_class_file_is_not_left_out_of_the_table(tmp_path: Path) -> None:
    write(tmp_path, "a")
    class_file_path(tmp_path, "b").write_text("{")
    with pytest.raises(EvaluationError, match=r"b_classification\.json"):
        write_class_tables(tmp_path, ["a", "b"], ".nii.gz")


def test_content_is_strict_json(tmp_path: Path) -> None:
    write(tmp_path, "a")
    text = class_file_path(tmp_path, "a").read_text()
    assert list(json.loads(text)) == ["logits", "probs", "pred", "num_classes", "produced_by"]


@pytest.mark.parametrize("module", ["class_files", "class_labels", "calibration", "text_tables"])
def test_module_needs_no_torch(module: str) -> None:
    code = (
        f"import sys, nnunet_3dct.formats.{module}; assert 'torch' not in sys.modules and 'nnunetv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
