"""What an earlier run left: kept where it is of the same model and settings, told of where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.inference.predicting import reports, run
from tests.inference.test_predict import CASES, add_fold

PLAIN = ("--disable_tta",)
AGAIN = (*PLAIN, "--continue_prediction")


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "prediction_manifest.json").read_text())


def change_weights(model: Path) -> None:
    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    next(iter(checkpoint["network_weights"].values())).mul_(1.01)
    torch.save(checkpoint, path)


def change_head(model: Path) -> None:
    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    next(iter(checkpoint["cls_head_state"].values())).mul_(1.01)
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        (change_weights, AGAIN),
        (change_head, AGAIN),
        (lambda model: add_fold(model, 1), AGAIN),
        (None, ("--tta", "pair", "--continue_prediction")),
        (None, (*AGAIN, "-step_size", "0.7")),
        (None, (*AGAIN, "--skip_empty")),
        (None, (*AGAIN, "--precision", "bf16")),
    ],
    ids=["network", "head", "folds", "mirroring", "step", "empty", "precision"],
)
def test_results_of_another_model_or_other_settings_are_predicted_again(
    change: Any, flags: tuple[str, ...], model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(images, tmp_path / "out", *PLAIN)
    if change:
        change(model)
    capsys.readouterr()
    run(images, tmp_path / "out", *flags)
    said = capsys.readouterr().out
    assert "3 to predict" in said and "Predicted again, since another model" in said and "new_001" in said
    run(images, tmp_path / "fresh", *[flag for flag in flags if flag != "--continue_prediction"])
    assert reports(tmp_path / "out") == reports(tmp_path / "fresh")


def test_old_class_file_that_names_no_model_is_predicted_again(model: Path, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, *PLAIN)
    path = tmp_path / "new_001_classification.json"
    content = json.loads(path.read_text())
    assert len(content["produced_by"].pop("model")) == 16
    path.write_text(json.dumps(content))
    run(images, tmp_path, *AGAIN)
    assert manifest(tmp_path)["kept"] == ["new_000", "new_002"]
    assert "model" in reports(tmp_path)["new_001"]["produced_by"]


def test_manifest_keeps_times_and_review_of_cases_that_are_kept(model: Path, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, *PLAIN, "--abstain", "0.99")
    first = manifest(tmp_path)
    assert list(first["review"]) == CASES
    (tmp_path / "new_001.nii.gz").unlink()
    run(images, tmp_path, *AGAIN, "--abstain", "0.99")
    second = manifest(tmp_path)
    assert second["review"] == first["review"] and list(second["seconds"]["per_case"]) == CASES
    for case in second["kept"]:
        assert second["seconds"]["per_case"][case] == first["seconds"]["per_case"][case]
    assert second["kept"] == ["new_000", "new_002"]
    run(images, tmp_path, *AGAIN, "--abstain", "0.01")  # another threshold marks anew, without predicting
    assert manifest(tmp_path)["review"] == {} and manifest(tmp_path)["kept"] == CASES
    assert [content["review"] for content in reports(tmp_path).values()] == [False] * 3


def test_probabilities_of_an_earlier_run_do_not_stay_beside_a_new_segmentation(
    model: Path, images: Path, tmp_path: Path
) -> None:
    run(images, tmp_path, *PLAIN, "--save_probabilities")
    assert len(list(tmp_path.glob("*.npz"))) == len(list(tmp_path.glob("*.pkl"))) == 3
    run(images, tmp_path, *PLAIN)
    assert not [*tmp_path.glob("*.npz"), *tmp_path.glob("*.pkl")]
    run(images, tmp_path, *AGAIN, "--save_probabilities")
    assert manifest(tmp_path)["kept"] == [] and len(list(tmp_path.glob("*.npz"))) == 3
