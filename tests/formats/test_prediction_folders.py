"""Which files a folder's class predictions are read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.formats.class_files import class_file_path, classified_in
from nnunet_3dct.formats.class_tables import write_class_tables
from nnunet_3dct.formats.prediction_folders import has_class_predictions, read_predictions
from tests.formats.class_predictions import write


def test_hidden_files_are_no_cases(tmp_path: Path) -> None:
    assert not has_class_predictions(tmp_path)
    class_file_path(tmp_path, "._a").write_bytes(b"\0\5\x16\7")
    assert not has_class_predictions(tmp_path)
    write(tmp_path, "a")
    assert classified_in(tmp_path) == ["a"] == list(read_predictions(tmp_path)[0])
    assert has_class_predictions(tmp_path)


def test_class_files_come_before_the_probabilities_and_these_before_the_classes(tmp_path: Path) -> None:
    for case in ("a", "b"):
        write(tmp_path, case)
    write_class_tables(tmp_path, ["a"], ".nii.gz")
    expected = {"*_classification.json": {"a", "b"}, "subtype_probabilities.csv": {"a"}, "subtype_results.csv": {"a"}}
    for source, cases in expected.items():
        found, said = read_predictions(tmp_path)
        assert (set(found), said) == (cases, source) and has_class_predictions(tmp_path)
        for path in tmp_path.glob(source):
            path.unlink()
    with pytest.raises(EvaluationError, match="holds no class predictions"):
        read_predictions(tmp_path)
