"""The figure of predicted cases, from the files that a demo leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from figures import draw_cases
from figures.cases_drawing import draw
from figures.predicted_case import median_cases, read_case
from nnunet_3dct.demo.workflow import CLASS_NAMES, DATASET
from nnunet_3dct.errors import NNUNet3DCTError
from tests.figures.drawn import outside, touching, words
from tests.utils import write_volume

TRUTH = [0, 0, 0, 1, 2, 2]
DICE = [0.9, 0.5, 0.7, 0.4, float("nan"), 0.6]
NAMES = [f"val_{n:04d}" for n in range(6)]


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A finished demo of six cases of different sizes; the lesion of the fourth is not found."""
    raw, predictions = tmp_path / "nnUNet_raw" / DATASET, tmp_path / "predictions"
    predictions.mkdir()
    for n, name in enumerate(NAMES):
        labels = np.zeros((14 + n, 40, 50), np.uint8)
        labels[3:11, 10:30, 10:35] = 1
        labels[5:9, 12:20, 14:24] = 2
        image = np.random.default_rng(n).normal(60, 20, labels.shape).astype(np.int16)
        write_volume(raw / "imagesVal" / f"{name}_0000.nii.gz", image)
        write_volume(raw / "labelsVal" / f"{name}.nii.gz", labels)
        write_volume(predictions / f"{name}.nii.gz", np.minimum(labels, 1) if n == 3 else np.roll(labels, 2, 2))
        result = {"pred": (n % 3), "probs": np.roll([0.7, 0.2, 0.1], n % 3).tolist()}
        (predictions / f"{name}_classification.json").write_text(json.dumps(result))
    cases = [
        {"prediction_file": f"/anywhere/{name}.nii.gz", "metrics": {"2": {"Dice": dice}}}
        for name, dice in zip(NAMES, DICE, strict=True)
    ]
    (predictions / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
    (raw / "classification.json").write_text(json.dumps(dict(zip(NAMES, TRUTH, strict=True))))
    return tmp_path


def test_of_each_class_the_case_of_median_dice_is_taken(demo: Path) -> None:
    assert median_cases(demo) == ["val_0002", "val_0003", "val_0004"]  # no Dice counts as 0, the lower one of two


def test_figure_says_class_probability_and_truth(demo: Path, tmp_path: Path) -> None:
    file = tmp_path / "cases.svg"
    draw_cases.main([str(demo), "-o", str(file)])
    text = words(file)
    verdicts = [word for word in text if word.startswith(("Predicted", "True")) or word in ("correct", "wrong")]
    assert verdicts == [
        *("Predicted: hypervascular 0.70", "True class: solid", "wrong"),
        *("Predicted: solid 0.70", "True class: cystic", "wrong"),
        *("Predicted: cystic 0.70", "True class: hypervascular", "wrong"),
    ]
    assert "val_0003 · lesion Dice 0.40" in text
    assert text[-1].endswith("Of all 6 held-out cases 2 have the right class.")


def test_twice_the_same_small_file(demo: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for file in files:
        draw_cases.main([str(demo), "-o", str(file)])
    first, second = (file.read_bytes() for file in files)
    assert first == second and len(first) < 600_000


@pytest.mark.parametrize("number", [1, 2, 3])
def test_no_text_lies_on_another_or_over_the_edge(demo: Path, number: int) -> None:
    figure = draw([read_case(demo, name) for name in NAMES[:number]], CLASS_NAMES, "")
    try:
        assert (touching(figure), outside(figure)) == ([], [])
    finally:
        plt.close(figure)


def test_unknown_case_and_unfinished_demo_are_named(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(NNUNet3DCTError, match=r"val_0005\), found 'val_9'"):
        read_case(demo, "val_9")
    with pytest.raises(NNUNet3DCTError, match=r"expected predictions/summary\.json"):
        median_cases(tmp_path / "empty")


def test_committed_figure_is_small_and_names_one_case_of_each_class() -> None:
    file = Path(draw_cases.__file__).with_name("cvis.svg")
    assert file.stat().st_size < 600_000
    truth = [word.removeprefix("True class: ") for word in words(file) if word.startswith("True class: ")]
    assert truth == list(CLASS_NAMES)
