"""``nnUNet3DCT_select`` at the terminal."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from nnunet_3dct.cli import predict
from nnunet_3dct.cli.select import main
from nnunet_3dct.evaluation.selection.wording import instructions, verdict
from tests.evaluation import trained_folds as made
from tests.evaluation.selection import model_folders as several
from tests.evaluation.selection.model_folders import CHANCE, GOOD, STOCK


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return several.write_models(tmp_path, monkeypatch)


def run(*flags: str) -> int:
    try:
        main(["-np", "1", "--bootstrap", "200", *flags])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def prediction_commands(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("nnUNet3DCT_predict")]


def test_table_verdict_and_files(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-d", "42") == 0
    out = capsys.readouterr().out
    result = json.loads((models / "selection.json").read_text())
    assert out.isascii()
    assert f"1  {GOOD}" in out and "Best of 6: the raw score is inflated, since it was chosen for it; corrected" in out
    corrected = result["best"]["corrected"]
    low, high = corrected["interval"]
    assert f"corrected {corrected['value']:.3f} ({low:.2f} to {high:.2f})." in out
    short = {GOOD: "1", CHANCE: "2", STOCK: "3"}
    alike = [" + ".join(short[model] for model in name.split(" + ")) for name in result["indistinguishable"]]
    assert f"60 cases cannot tell the best from {len(alike)} other candidate" in out
    assert f" by class: {', '.join(alike)}." in out and "1 + 3" in alike
    assert f"Use: {GOOD}" in out
    (line,) = [line for line in out.splitlines() if line.startswith("1 ") and "best, selected" in line]
    assert f"{result['candidates'][0]['f1_macro']['value']:.3f}" in line
    text = (models / "selection_instructions.txt").read_text()
    (command,) = prediction_commands(text)
    assert command in out
    assert "-tr nnUNetTrainer_CLSHeadLesion -p nnUNetPlans -c 3d_fullres -f 0 1 2" in command


def test_command_of_the_instructions_is_one_that_predict_takes(models: Path) -> None:
    run("-d", "42", "--disable_ensembling")
    (command,) = prediction_commands((models / "selection_instructions.txt").read_text())
    args = predict._parser().parse_args(shlex.split(command)[1:])
    assert (args.d, args.f) == (made.DATASET, ["0", "1", "2"])


def test_instructions_for_a_pair_predict_twice_and_average(models: Path) -> None:
    for name in (GOOD, STOCK):
        several.write_probabilities(models / name)
    run("-d", "42", "-tr", "nnUNetTrainer_CLSHeadLesion", "nnUNetTrainer_CLSHeadSumFT")
    text = (models / "selection_instructions.txt").read_text()
    first, second = prediction_commands(text)
    assert "-o OUTPUT_FOLDER_MODEL_1" in first and "CLSHeadLesion" in first and "--save_probabilities" in first
    assert "-o OUTPUT_FOLDER_MODEL_2" in second and "CLSHeadSumFT" in second
    assert "nnUNetv2_ensemble -i OUTPUT_FOLDER_MODEL_1 OUTPUT_FOLDER_MODEL_2 -o OUTPUT_FOLDER" in text
    (line,) = [line for line in text.splitlines() if line.startswith("python -c")]
    code = shlex.split(line)[2]
    assert "nnunet_3dct.average_classes(['OUTPUT_FOLDER_MODEL_1', 'OUTPUT_FOLDER_MODEL_2'], 'OUTPUT_FOLDER')" in code
    compile(code, "instructions", "exec")


def test_models_outside_nnunet_results_are_predicted_with_their_own_folder(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    assert run("-m", str(models / GOOD)) == 0
    text = (models / "selection_instructions.txt").read_text()
    assert f"export nnUNet_results={models.parent}\n" in text
    assert "Only one candidate, so nothing was chosen" in text


def test_files_go_where_they_are_told_and_json_goes_to_the_terminal(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine.json"
    assert run("-d", "42", "--disable_ensembling", "--json", "-o", str(output)) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(output.read_text())
    assert (tmp_path / "selection_instructions.txt").is_file() and not (models / "selection.json").exists()


def test_model_that_cannot_be_read_is_told_and_gives_1(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (several.validation(models / CHANCE, "case_103") / "case_103_classification.json").unlink()
    assert run("-d", "42", "--disable_ensembling") == 1
    assert f"left out: {CHANCE}: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "-d or -m: expected a dataset, folders of models or both, found neither"),
        (["-d", "42", "-tr", "nnUNetTrainer_Lost"], "nnUNetTrainer_Lost"),
        (["-d", "42", "--bootstrap", "10"], "expected at least 100, found 10"),
        (["-d", "42", "--reference", "nnUNetTrainer_Lost"], "nnUNetTrainer_Lost, which 0 of them have"),
        (["-d", "42", "--disable_ensembling", "-o", "/no/such/folder/s.json"], "Give another file with -o."),
    ],
)
def test_wrong_use_is_2_with_one_message(
    models: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*flags) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (models / "selection.json").exists()


def test_words_say_what_speaks_against_the_selected_model(models: Path, tmp_path: Path) -> None:
    run("-d", "42", "--disable_ensembling")
    result = json.loads((models / "selection.json").read_text())
    rows = {row["name"]: row for row in result["candidates"]}
    rows[CHANCE]["dice"]["value"] = 0.95
    assert "Better segmentation, but shown to be worse by class: 2 (Dice 0.950)." in verdict(result)
    rows[GOOD]["dice"]["value"], rows[GOOD]["dice_missing"] = None, "there is none"
    assert "The Dice of 1 is not known: there is none." in verdict(result)
    result["best"]["corrected"] = {"value": None, "interval": None}
    assert any("too few cases to say by how much" in line for line in verdict(result))
    for row in rows.values():
        row["not_worse"] = row["name"] == GOOD
    result["indistinguishable"] = []
    assert "All other candidates name the class worse, also when all comparisons are taken together." in verdict(result)
    assert instructions(result).endswith("\n")
