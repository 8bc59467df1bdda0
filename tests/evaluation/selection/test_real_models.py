"""The whole way with networks that were trained: selection of a pair, then the commands that predict with it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.cli import predict
from nnunet_3dct.evaluation.selection.rule import choose
from nnunet_3dct.evaluation.selection.select import select_model
from nnunet_3dct.evaluation.selection.wording import instructions
from nnunet_3dct.formats.prediction_folders import read_predictions
from tests import toy

AGAIN = "nnUNetTrainer_CLSHeadMA"


@pytest.fixture
def models(nnunet: Path, trained_results: Path) -> list[Path]:
    """The fine-tuned toy model with its validation, and the same under the name of another trainer."""
    source = toy.trained_folder(trained_results, toy.FINE_TUNING)
    names = (source.name, source.name.replace(toy.FINE_TUNING, AGAIN))
    return [shutil.copytree(source, nnunet / toy.DATASET / name) for name in names]


def test_pair_of_a_model_with_itself_has_the_dice_of_the_model(models: list[Path]) -> None:
    selection = select_model(toy.DATASET, resamples=100)
    first, second, pair = (row["dice"]["value"] for row in selection["candidates"])
    assert selection["n_cases"] == len(toy.VALIDATION)
    assert first == second
    assert pair == pytest.approx(first, abs=0.002)  # probabilities are stored in half precision


def test_commands_for_a_pair_work_as_they_are_written(
    models: list[Path], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pair_alone(*arguments: np.ndarray) -> object:
        choice = choose(*arguments)
        choice.selected[:] = 2
        return choice

    monkeypatch.setattr("nnunet_3dct.evaluation.selection.comparison.choose", pair_alone)
    commands = [
        shlex.split(line.replace("INPUT_FOLDER", str(images)))
        for line in instructions(select_model(toy.DATASET, resamples=100)).splitlines()
        if line.startswith(("nnUNet3DCT_", "nnUNetv2_ensemble", "python"))
    ]
    assert [command[0] for command in commands] == ["nnUNet3DCT_predict"] * 2 + ["nnUNetv2_ensemble", "python"]
    monkeypatch.chdir(tmp_path)
    for command in commands[:2]:
        predict.main([*command[1:], "-device", "cpu", "--backend", "torch", "--disable_tta", "--disable_progress_bar"])
    code = "from nnunetv2.ensembling.ensemble import entry_point_ensemble_folders as run; run()"
    subprocess.run([sys.executable, "-c", code, *commands[2][1:], "-np", "1"], check=True)
    exec(commands[3][2])
    single, averaged = (read_predictions(tmp_path / name)[0] for name in ("OUTPUT_FOLDER_MODEL_1", "OUTPUT_FOLDER"))
    assert set(averaged) == {"new_000", "new_001", "new_002"}
    for case, prediction in averaged.items():
        assert prediction.probabilities == pytest.approx(single[case].probabilities)
        volumes = [
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / name / f"{case}.nii.gz")))
            for name in ("OUTPUT_FOLDER_MODEL_1", "OUTPUT_FOLDER")
        ]
        assert np.mean(volumes[0] == volumes[1]) > 0.99
    assert (tmp_path / "OUTPUT_FOLDER" / "subtype_results.csv").is_file()
