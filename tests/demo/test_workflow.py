"""The workflow of the demo: its commands in parts, and for real in its smallest form."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from nnunet_3dct.cli.demo import format_table, main
from nnunet_3dct.demo import workflow
from nnunet_3dct.demo.pictures import choose_cases, draw_cases
from nnunet_3dct.demo.steps import StepState
from nnunet_3dct.demo.workflow import DemoPlan, demo_steps, demo_variables, run_demo, summarize
from nnunet_3dct.errors import EvaluationError, NNUNet3DCTError
from nnunet_3dct.report.cohort import collect
from tests.report.inputs import Inputs

STEPS = ["phantom", "plan", "stage_1", "stage_2", "predict", "evaluate_segmentation", "evaluate_whole_pancreas",
         "evaluate_classification", "report"]  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path / "inputs").write()


def test_every_step_is_a_command_whose_flags_are_known(tmp_path: Path) -> None:
    steps = {step.name: step for step in demo_steps(tmp_path, DemoPlan())}
    assert list(steps) == STEPS
    for name, module in (("phantom", "phantom"), ("predict", "predict"), ("report", "report")):
        command = importlib.import_module(f"nnunet_3dct.cli.{module}")
        build = getattr(command, "build_parser", None) or command._parser
        build().parse_args(list(steps[name].command[1:]))
    assert steps["stage_2"].variables["NNUNETV2_MT_TARGET_LABELS"] == "lesion"
    assert steps["stage_1"].epochs == 6 and steps["stage_1"].variables["NNUNETV2_MT_EPOCHS"] == "6"


def test_numbers_of_processes_that_the_user_set_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "5")
    monkeypatch.delenv("nnUNet_def_n_proc")
    variables = demo_variables(tmp_path)
    assert variables["nnUNet_n_proc_DA"] == "5" and int(variables["nnUNet_def_n_proc"]) >= 1
    assert variables["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(NNUNet3DCTError, match="expected an empty folder or an earlier demo"):
        run_demo(tmp_path, DemoPlan(), lambda _: None)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_step_that_fails_ends_the_demo_and_its_variables_stay_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workflow, "program", lambda name: shutil.which("false") or name)
    before = dict(os.environ)
    with pytest.raises(SystemExit) as stopped:
        main(["-o", str(tmp_path / "demo"), "--cases", "6"])
    assert stopped.value.code == 2
    assert "Step phantom failed with exit code 1" in capsys.readouterr().err
    assert {name: os.environ.get(name) for name in before} == before and "nnUNet_results" not in os.environ


def test_pictures_show_cases_of_every_class_in_turn(inputs: Inputs, tmp_path: Path) -> None:
    cohort = collect(inputs.options())
    chosen = choose_cases(cohort.pages, 4)
    assert [case.name for case in chosen] == ["case_0", "case_1", "case_2", "case_3"]
    assert [case.classified and case.classified.truth for case in chosen] == [0, 1, 2, 0]
    written = draw_cases(cohort, tmp_path / "pictures", 4)
    assert [path.name for path in written] == [*(f"case_{n}.png" for n in range(4)), "overview.png"]
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 300 and len(set(picture.convert("RGB").getdata())) > 100


def test_pictures_leave_matplotlibs_backend_alone(inputs: Inputs, tmp_path: Path) -> None:
    import matplotlib

    from nnunet_3dct.evaluation.reliability_diagram import draw_reliability

    matplotlib.use("svg")
    try:
        draw_cases(collect(inputs.options()), tmp_path / "pictures", 2)
        quality = {"reliability": [{"n": 1, "confidence": 0.5, "accuracy": 1.0}], "expected_calibration_error": 0.5}
        draw_reliability({"before": quality, "after": None}, tmp_path / "diagram.png")
        assert matplotlib.get_backend() == "svg"
    finally:
        matplotlib.use("agg")
    with Image.open(tmp_path / "diagram.png") as diagram:
        assert diagram.format == "PNG"


def test_summary_holds_the_scores_of_the_evaluations(tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    with pytest.raises(EvaluationError, match=r"summary\.json cannot be read"):
        summarize(tmp_path, {})
    files = {
        "summary.json": {"mean": {"1": {"Dice": 0.9}, "2": {"Dice": 0.7}}},
        "whole_pancreas_summary.json": {"mean": {"whole_pancreas": {"Dice": 0.95}}},
        "classification_metrics.json": {
            "f1_macro": 0.8, "accuracy": 0.75, "n_samples": 4, "confidence_intervals": {"f1_macro": [0.5, 1.0]},
        },
    }  # fmt: skip
    for name, content in files.items():
        (predictions / name).write_text(json.dumps(content))
    table = format_table(summarize(tmp_path, {"stage_1": 12.34}), 20.0)
    for text in ("0.950", "0.700", "0.800   95 % interval 0.50 to 1.00", "stage 1", "12"):
        assert text in table


@pytest.mark.slow
def test_demo_runs_in_its_smallest_form(tmp_path: Path) -> None:
    states: list[StepState] = []
    plan = DemoPlan(cases=8, val=3, stage_1=(1, 3, 0.05), stage_2=(2, 3, 0.02))
    summary = run_demo(tmp_path / "demo", plan, states.append)
    assert list(summary["seconds"]) == STEPS and summary["n_cases"] == 3
    assert 0 <= summary["whole_pancreas_dice"] <= 1 and 0 <= summary["macro_f1"] <= 1
    assert json.loads((tmp_path / "demo" / "summary.json").read_text())["n_cases"] == 3
    pictures = sorted(path.name for path in (tmp_path / "demo" / "pictures").iterdir())
    assert pictures == ["overview.png", "val_0000.png", "val_0001.png", "val_0002.png"]
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") == 3 and "nnUNetTrainer_CLSHeadLesion" in page and "Evidence for the" in page
    assert {"epoch 1 of 1", "epoch 2 of 2", "validation"} <= {state.detail for state in states}
