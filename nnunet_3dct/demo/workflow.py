"""The demo's commands: phantom, planning, two stages, prediction, three evaluations, report."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from typing_extensions import TypedDict

from nnunet_3dct.demo.steps import Step, Tell, program, run_step
from nnunet_3dct.errors import EvaluationError, NNUNet3DCTError
from nnunet_3dct.formats.atomic import read_json, write_json
from nnunet_3dct.formats.metrics_class import CLASSIFICATION_METRICS, ClassificationMetrics
from nnunet_3dct.formats.metrics_segmentation import WHOLE_ORGAN_SUMMARY, WHOLE_PANCREAS, WholeOrganSummary
from nnunet_3dct.paths import FOLDER_VARIABLES

DATASET = "Dataset001_3DCT"
CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlansTiny"
STAGE_1, STAGE_2 = "nnUNetTrainer_Stage1", "nnUNetTrainer_CLSHeadLesion"
CLASS_NAMES = ("solid", "cystic", "hypervascular")
REPORT, PICTURES, SUMMARY = "report.html", "pictures", "summary.json"


@dataclass(frozen=True)
class DemoPlan:
    """How much the demo does; the defaults fit two CPU cores and some twelve minutes.

    Attributes:
        cases, val: phantom cases for training and held out.
        seed: of the phantom and of both trainings, which are repeatable on the same machine and versions.
        difficulty: of the phantom.
        stage_1, stage_2: epochs, iterations an epoch and learning rate of the two stages.
    """

    cases: int = 96
    val: int = 24
    seed: int = 0
    difficulty: str = "easy"
    stage_1: tuple[int, int, float] = (6, 150, 0.05)
    stage_2: tuple[int, int, float] = (10, 100, 0.02)
    device: str = "cpu"


class DemoSummary(TypedDict):
    """Content of the demo's ``summary.json``; ``seconds`` of each step."""

    whole_pancreas_dice: float
    pancreas_dice: float
    lesion_dice: float
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    accuracy: float
    n_cases: int
    seconds: dict[str, float]


def run_demo(folder: Path, plan: DemoPlan, tell: Tell) -> DemoSummary:
    """Run everything below ``folder``: all commands, then pictures and ``summary.json``.

    nnU-Net's variables are set for the commands alone.

    Args:
        folder: empty, missing, or of an earlier demo, which is deleted.
        plan: how much to do.
        tell: told how far each command is.

    Raises:
        NNUNet3DCTError: the folder holds something else, or a step failed.
    """
    _empty(folder)
    variables = demo_variables(folder)
    for variable in FOLDER_VARIABLES:
        Path(variables[variable]).mkdir(parents=True)
    seconds: dict[str, float] = {}
    for step in demo_steps(folder, plan):
        seconds[step.name] = run_step(step, folder / "logs", tell, variables)
    draw_pictures(folder)
    summary = summarize(folder, seconds)
    write_json(summary, folder / SUMMARY)
    return summary


def demo_variables(folder: Path) -> dict[str, str]:
    """nnU-Net's variables for every command of the demo; numbers of processes that the user has set stay."""
    cores = os.cpu_count() or 1
    numbers = {"nnUNet_def_n_proc": min(cores, 8), "nnUNet_n_proc_DA": max(1, cores // 2)}
    return {
        **{variable: str(folder / variable) for variable in FOLDER_VARIABLES},
        **{name: os.environ.get(name, str(number)) for name, number in numbers.items()},
    }


def demo_steps(folder: Path, plan: DemoPlan) -> list[Step]:
    """The commands, in order."""
    raw = folder / "nnUNet_raw" / DATASET
    predictions = folder / "predictions"
    models = folder / "nnUNet_results" / DATASET
    model = "{}__" + f"{PLANS}__{CONFIGURATION}"
    stage_1_checkpoint = models / model.format(STAGE_1) / "fold_0" / "checkpoint_final.pth"
    plans_file = models / model.format(STAGE_2) / "fold_0" / "plans.json"
    train = [program("nnUNetv2_train"), DATASET, CONFIGURATION, "0", "-p", PLANS, "-device", plan.device]
    cores = str(min(os.cpu_count() or 1, 8))
    script = "nnunetv2.evaluation.evaluate_"
    return [
        Step(
            "phantom",
            f"1. Phantom: {plan.cases} training and {plan.val} held-out CT crops, three lesion subtypes",
            [program("nnUNet3DCT_phantom"), "-o", str(raw), "--cases", str(plan.cases), "--val", str(plan.val),
             "--seed", str(plan.seed), "--difficulty", plan.difficulty, "-np", cores],
            {},
        ),
        Step(
            "plan",
            "2. Planning and preprocessing (nnU-Net), coarse voxels and a tiny network for two CPU cores",
            [program("nnUNetv2_plan_and_preprocess"), "-d", "1", "-c", CONFIGURATION, "-pl", "TinyUNetPlanner",
             "-overwrite_target_spacing", "5", "2.8", "2.8", "-gpu_memory_target", "1", "-np", cores, "-npfp", cores],
            {},
        ),
        Step(
            "stage_1",
            "3. Stage 1: segmentation only",
            [*train, "-tr", STAGE_1],
            _schedule(*plan.stage_1, plan.seed),
            epochs=plan.stage_1[0],
        ),
        Step(
            "stage_2",
            "4. Stage 2: segmentation and class together, from the stage-1 checkpoint",
            [*train, "-tr", STAGE_2, "--npz"],
            {
                **_schedule(*plan.stage_2, plan.seed),
                "NNUNETV2_MT_NUM_CLS": "3",
                "NNUNETV2_MT_LOSS_WEIGHT": "0.3",
                "NNUNETV2_MT_TARGET_LABELS": "lesion",
                "NNUNETV2_MT_CLS_VAL_EVERY": "2",
                "NNUNETV2_PRE_CHECKPOINT_PATH": str(stage_1_checkpoint),
            },
            epochs=plan.stage_2[0],
        ),
        Step(
            "predict",
            "5. Prediction of the held-out cases: both outputs from one pass",
            [program("nnUNet3DCT_predict"), "-i", str(raw / "imagesVal"), "-o", str(predictions), "-d", DATASET,
             "-c", CONFIGURATION, "-tr", STAGE_2, "-p", PLANS, "-f", "0",
             "-device", plan.device, "--explain"],
            {},
        ),
        Step(
            "evaluate_segmentation",
            "6. Evaluation of each label (nnU-Net)",
            [program("nnUNetv2_evaluate_folder"), str(raw / "labelsVal"), str(predictions), "-djfile",
             str(raw / "dataset.json"), "-pfile", str(plans_file), "-np", cores],
            {},
        ),
        Step(
            "evaluate_whole_pancreas",
            "7. Evaluation of the whole pancreas",
            [sys.executable, "-m", script + "whole_pancreas", str(raw / "labelsVal"), str(predictions), "-djfile",
             str(raw / "dataset.json")],
            {},
        ),
        Step(
            "evaluate_classification",
            "8. Evaluation of the class",
            [sys.executable, "-m", script + "classification", str(predictions), str(raw / "classification.json"),
             "--class-names", *CLASS_NAMES],
            {},
        ),
        Step(
            "report",
            "9. Report: one page with tables, curves and pictures of every case",
            [program("nnUNet3DCT_report"), "--predictions", str(predictions), "--labels", str(raw / "labelsVal"),
             "--images", str(raw / "imagesVal"), "--classes", str(raw / "classification.json"), "--class-names",
             *CLASS_NAMES, "--output", str(folder / REPORT)],
            {},
        ),
    ]  # fmt: skip


def _schedule(epochs: int, iterations: int, lr: float, seed: int) -> dict[str, str]:
    return {
        "NNUNETV2_MT_EPOCHS": str(epochs),
        "NNUNETV2_MT_ITERS_PER_EPOCH": str(iterations),
        "NNUNETV2_MT_VAL_ITERS": "4",
        "NNUNETV2_MT_LR": str(lr),
        "NNUNETV2_MT_SEED": str(seed),
        "NNUNETV2_MT_INTENSITY_AUG": "off",  # the phantom's subtypes differ in attenuation
    }


def _empty(folder: Path) -> None:
    """Remove an earlier demo; refuse to touch anything else."""
    if folder.exists() and not folder.is_dir():
        raise NNUNet3DCTError(f"Demo folder {folder}: expected a folder, found a file. Choose another one.")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "logs").is_dir():
            raise NNUNet3DCTError(
                f"Demo folder {folder}: expected an empty folder or an earlier demo, found other files."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir()


def draw_pictures(folder: Path) -> list[Path]:
    """Draw some of the predicted cases as PNG files from what the report is rendered from."""
    from nnunet_3dct.demo.pictures import draw_cases
    from nnunet_3dct.report.cohort import collect
    from nnunet_3dct.report.options import ReportOptions

    raw = folder / "nnUNet_raw" / DATASET
    options = ReportOptions(
        folder / "predictions",
        raw / "labelsVal",
        raw / "imagesVal",
        raw / "classification.json",
        class_names=CLASS_NAMES,
        num_processes=os.cpu_count() or 1,
    )
    return draw_cases(collect(options), folder / PICTURES)


def summarize(folder: Path, seconds: dict[str, float]) -> DemoSummary:
    """Put the scores of the evaluations together.

    Raises:
        EvaluationError: a file of an evaluation is missing.
    """

    def read(name: str) -> object:
        return read_json(folder / "predictions" / name, "Metrics", EvaluationError, "Run the demo again.")

    labels = cast(dict[str, dict[str, dict[str, float]]], read("summary.json"))  # nnU-Net's
    organ = cast(WholeOrganSummary, read(WHOLE_ORGAN_SUMMARY))
    classes = cast(ClassificationMetrics, read(CLASSIFICATION_METRICS))
    low, high = (classes["confidence_intervals"] or {})["f1_macro"]
    return {
        "whole_pancreas_dice": organ["mean"][WHOLE_PANCREAS]["Dice"],
        "pancreas_dice": labels["mean"]["1"]["Dice"],
        "lesion_dice": labels["mean"]["2"]["Dice"],
        "macro_f1": classes["f1_macro"],
        "macro_f1_interval": (low, high),
        "accuracy": classes["accuracy"],
        "n_cases": classes["n_samples"],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
