"""Class files: what is written can be read, and what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from nnunet_3dct.errors import ClassLabelsError, EvaluationError, NNUNet3DCTError
from nnunet_3dct.formats.class_files import class_file, class_file_path, read_class_file, write_class_file
from tests.formats.class_predictions import NAMES, PROBABILITIES, write


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


def test_names_of_another_number_are_refused_when_a_class_file_is_made() -> None:
    with pytest.raises(ClassLabelsError, match="expected 3 names, since the classes are 0 to 2, found 2"):
        class_file(PROBABILITIES, ["a", "b"])
    assert "class_names" not in class_file(PROBABILITIES, None)
    with pytest.raises(NNUNet3DCTError, match="expected finite numbers"):
        class_file([0.5, float("nan"), 0.5], None)


def test_content_is_strict_json(tmp_path: Path) -> None:
    write(tmp_path, "a")
    text = class_file_path(tmp_path, "a").read_text()
    assert list(json.loads(text)) == ["logits", "probs", "pred", "num_classes", "produced_by"]
