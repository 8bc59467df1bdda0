"""Class probabilities of two prediction folders averaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct.errors import EvaluationError, OutputError, SettingsError
from nnunet_3dct.evaluation.averaging import average_classes
from nnunet_3dct.formats.class_files import read_class_file
from nnunet_3dct.formats.prediction_folders import read_predictions
from tests.evaluation.predictions import write_case

FIRST = {"a": [0.6, 0.3, 0.1], "b": [0.1, 0.8, 0.1]}
SECOND = {"a": [0.1, 0.7, 0.2], "b": [0.2, 0.7, 0.1]}


def write(folder: Path, rows: dict[str, list[float]], **content: object) -> Path:
    for case, probs in rows.items():
        write_case(folder, case, probs=probs, pred=int(np.argmax(probs)), class_names=["x", "y", "z"], **content)
    return folder


def test_probabilities_are_averaged_and_the_class_is_that_of_the_average(tmp_path: Path) -> None:
    folders = [
        write(tmp_path / "one", FIRST, produced_by={"trainer": "A"}),
        write(tmp_path / "two", SECOND, produced_by={"trainer": "B"}),
    ]
    (tmp_path / "one" / "dataset.json").write_text(json.dumps({"file_ending": ".nrrd"}))
    found = average_classes(folders, tmp_path / "made" / "both")
    assert found["a"]["probs"] == pytest.approx([0.35, 0.5, 0.15]) and found["a"]["pred"] == 1
    read = read_class_file(tmp_path / "made" / "both" / "a_classification.json")
    assert read.probabilities == pytest.approx([0.35, 0.5, 0.15]) and read.class_names == ("x", "y", "z")
    assert read.produced_by["averaged_from"] == [{"trainer": "A"}, {"trainer": "B"}]
    table = (tmp_path / "made" / "both" / "subtype_results.csv").read_text()
    assert table == "Names,Subtype\na.nrrd,1\nb.nrrd,1\n"
    assert set(read_predictions(tmp_path / "made" / "both")[0]) == {"a", "b"}


def test_folders_that_do_not_fit_are_refused_with_the_case(tmp_path: Path) -> None:
    one = write(tmp_path / "one", FIRST)
    with pytest.raises(EvaluationError, match=r"that .* lacks: b"):
        average_classes([one, write(tmp_path / "fewer", {"a": [0.1, 0.7, 0.2]})], tmp_path / "out")
    other = tmp_path / "other"
    for case in FIRST:
        write_case(other, case, probs=[0.5, 0.5], pred=0)
    with pytest.raises(EvaluationError, match="Case a: expected the same classes in all folders, found 3 in"):
        average_classes([one, other], tmp_path / "out")
    for case in FIRST:
        write_case(other, case, pred=0, num_classes=3)
    with pytest.raises(EvaluationError, match="case a: expected class probabilities, found only a class"):
        average_classes([one, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_folder_and_an_output_that_is_a_file_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one", FIRST)
    with pytest.raises(SettingsError, match="expected at least 2, found 1"):
        average_classes([one], tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file cannot be made"):
        average_classes([one, one], tmp_path / "file")
