"""Inputs that no report can be made from: messages that name case and value."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import numpy as np
import pytest

from nnunet_3dct.cli.report import main
from nnunet_3dct.errors import EvaluationError, NNUNet3DCTError
from tests.report.inputs import SHAPE, Inputs, image, labels
from tests.utils import truncate, write_volume


def delete(pattern: str) -> Callable[[Inputs], None]:
    def apply(inputs: Inputs) -> None:
        found = list(inputs.root.glob(pattern))
        assert found
        for path in found:
            path.unlink()

    return apply


def volume(folder: str, name: str, array: np.ndarray, **geometry) -> Callable[[Inputs], object]:
    return lambda inputs: inputs.volume(folder, name, array, **geometry)


def cut(name: str) -> Callable[[Inputs], object]:
    return lambda inputs: truncate(inputs.root / name, 0.6)


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (volume("images", "case_2_0000", image(2), spacing=(0.8, 0.9, 3)), ["case_2", "spacing", "2.5", "3)"]),
        (volume("images", "case_2_0000", image(2)[:-1]), ["case_2", "(26, 22, 14)", "(26, 22, 13)"]),
        (volume("images", "case_2_0000", image(2), origin=(5, 0, 0)), ["case_2", "origin", "(5, 0, 0)"]),
        (volume("labels", "case_2", labels()[:-1]), ["case_2", "size (x, y, z)", "(26, 22, 13)", "(26, 22, 14)"]),
        (
            volume("predictions/evidence", "case_2", np.zeros((2, 2, 2), np.float32)),
            ["case_2", "evidence", "(2, 2, 2)"],
        ),
        (volume("predictions", "case_2", labels() * 2), ["case_2", "[0, 1, 2]", "4"]),
        (volume("predictions", "case_9", labels()), ["case_9", "images"]),
        (delete("images/case_[24]_0000.nii.gz"), ["2 of 6", "case_2_0000.nii.gz, case_4_0000.nii.gz", "images"]),
        (delete("labels/case_3.nii.gz"), ["case_3", "no reference"]),
        (delete("predictions/case_3.nii.gz"), ["case_3", "no segmentation"]),
        (delete("predictions/case_3_classification.json"), ["case_3", "no class"]),
        (delete("predictions/*.nii.gz"), ["predictions", "expected label volumes *.nii.gz"]),
        (delete("predictions/dataset.json"), ["predictions/dataset.json", "found none"]),
        (cut("images/case_2_0000.nii.gz"), ["case_2", "truncated"]),
        (cut("labels/case_2.nii.gz"), ["case_2", "truncated"]),
        (lambda inputs: inputs.json("classification.json", {"case_0": 0}), ["case_1", "without a label"]),
        (lambda inputs: inputs.json("predictions/prediction_manifest.json", []), ["prediction_manifest.json", "list"]),
        (lambda inputs: shutil.rmtree(inputs.root / "images"), ["images: ", "no folder"]),
    ],
)
def test_message_names_case_and_value(inputs, capsys, damage, parts):
    damage(inputs)
    output = inputs.root / "report.html"
    with pytest.raises(SystemExit) as stopped:
        main(inputs.arguments(output))
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.startswith("error: ")
    for part in parts:
        assert part in message
    assert not output.exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"class_names": ("a", "b")}, ["3 names", "found 2"]),
        ({"class_names": ("a", "b"), "classes": None}, ["3 names", "found 2"]),
        ({"window": (240.0, -160.0)}, ["window", "240 -160"]),
        ({"window": (float("nan"), 240.0)}, ["window", "nan"]),
        ({"max_cases": -1}, ["max_cases", "-1"]),
        ({"tolerance": -1.0}, ["tolerance", "-1"]),
    ],
)
def test_settings_out_of_range_are_named(inputs, changes, parts):
    with pytest.raises(NNUNet3DCTError) as raised:
        inputs.html(**changes)
    for part in parts:
        assert part in str(raised.value)


def test_two_class_names_for_three_classes_in_the_class_files_are_named(inputs):
    for path in inputs.root.glob("predictions/*_classification.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "class_names": ["solid", "cystic"]}))
    for classes in (None, inputs.root / "classification.json"):
        with pytest.raises(EvaluationError, match=r"class files of .*predictions: expected 3 names.*found 2: solid"):
            inputs.html(class_names=None, classes=classes)


@pytest.mark.parametrize("folder", ["predictions", "labels", "images"])
def test_the_same_volume_in_two_formats_is_refused(inputs, folder):
    stem = "case_2_0000" if folder == "images" else "case_2"
    write_volume(inputs.root / folder / f"{stem}.nii", labels())
    with pytest.raises(NNUNet3DCTError, match=rf"{folder}: .*{stem}\.nii and {stem}\.nii\.gz"):
        inputs.html()


@pytest.mark.parametrize("where", ["missing/report.html", "images"])
def test_output_that_cannot_be_written_is_named_before_the_work(inputs, capsys, where):
    inputs.volume("labels", "case_0", np.zeros(SHAPE, np.uint8) + 7)  # would stop the work
    with pytest.raises(SystemExit) as stopped:
        main(inputs.arguments(inputs.root / where))
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and "-o: " in message and where.partition("/")[0] in message


def test_references_without_prediction_are_named_unless_chill(inputs):
    for folder in ("predictions", "images"):
        next(inputs.root.glob(f"{folder}/case_4*.nii.gz")).unlink()
    (inputs.root / "predictions" / "case_4_classification.json").unlink()
    with pytest.raises(NNUNet3DCTError, match=r"case_4\.nii\.gz"):
        inputs.html()
    assert "1 references without a prediction, left out: case_4.nii.gz" in inputs.html(chill=True)


def test_labels_that_dataset_json_does_not_know_are_named_without_references_too(inputs):
    inputs.volume("predictions", "case_2", labels() * 2)
    with pytest.raises(NNUNet3DCTError, match=r"case_2.*\[0, 1, 2\].*4"):
        inputs.html(labels=None)
