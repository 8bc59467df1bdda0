"""The demo's commands: phantom, planning, two stages, prediction, three evaluations, report."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_3dct.demo.steps import Step, program, run_step
from nnunet_3dct.errors import NNUNet3DCTError
from nnunet_3dct.formats.atomic import write_json

DATASET = "Dataset001_3DCT"
CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlansTiny"
STAGE_1, STAGE_2 = "nnUNetTrainer_Stage1", "nnUNetTrainer_CLSHeadLesion"
CLASS_NAMES = ("solid", "cystic", "hypervascular")


@dataclass(frozen=True)
class DemoPlan:
    """How much the demo does; the defaults fit two CPU cores and some ten minutes.

    Attributes:
        cases, val: phantom cases for training and held out.
        seed, difficulty: of the phantom.
        stage_1, stage_2: epochs, iterations an epoch and learning rate of the two stages.
    """

    cases: int = 96
    val: int = 24
    seed: int = 0
    difficulty: str = "easy"
    stage_1: tuple[int, int, float] = (6, 150, 0.05)
    stage_2: tuple[int, int, float] = (10, 100, 0.02)
    device: str = "cpu"


def run_demo(folder: Path, plan: DemoPlan) -> dict[str, Any]:
    """Run everything below ``folder`` and return what goes into ``summary.json``.

    Raises:
        NNUNet3DCTError: the folder holds something else, or a step failed.
    """
    _empty(folder)
    paths = {
        "nnUNet_raw": folder / "nnUNet_raw",
        "nnUNet_preprocessed": folder / "nnUNet_preprocessed",
        "nnUNet_results": folder / "nnUNet_results",
    }
    for variable, path in paths.items():
        path.mkdir(parents=True)
        os.environ[variable] = str(path)
    cores = os.cpu_count() or 1
    os.environ.setdefault("nnUNet_def_n_proc", str(min(cores, 8)))
    os.environ.setdefault("nnUNet_n_proc_DA", str(max(1, cores // 2)))
    # threads that spin long starve augmentation and other work on few cores
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")

    seconds: dict[str, float] = {}
    for step in _steps(folder, paths, plan):
        seconds[step.name] = run_step(step, folder / "logs")
    return _summary(folder, seconds)


def _steps(folder: Path, paths: dict[str, Path], plan: DemoPlan) -> list[Step]:
    raw = paths["nnUNet_raw"] / DATASET
    predictions = folder / "predictions"
    model = "{}__" + f"{PLANS}__{CONFIGURATION}"
    stage_1_checkpoint = paths["nnUNet_results"] / DATASET / model.format(STAGE_1) / "fold_0" / "checkpoint_final.pth"
    plans_file = paths["nnUNet_results"] / DATASET / model.format(STAGE_2) / "fold_0" / "plans.json"
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
            _schedule(*plan.stage_1),
            epochs=plan.stage_1[0],
        ),
        Step(
            "stage_2",
            "4. Stage 2: segmentation and class together, from the stage-1 checkpoint",
            [*train, "-tr", STAGE_2, "--npz"],
            {
                **_schedule(*plan.stage_2),
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
            [program("nnUNet3DCT_report"), "-p", str(predictions), "-g", str(raw / "labelsVal"), "-i",
             str(raw / "imagesVal"), "-c", str(raw / "classification.json"), "--class-names", *CLASS_NAMES,
             "-o", str(folder / "report.html")],
            {},
        ),
    ]  # fmt: skip


def _schedule(epochs: int, iterations: int, lr: float) -> dict[str, str]:
    return {
        "NNUNETV2_MT_EPOCHS": str(epochs),
        "NNUNETV2_MT_ITERS_PER_EPOCH": str(iterations),
        "NNUNETV2_MT_VAL_ITERS": "4",
        "NNUNETV2_MT_LR": str(lr),
        "NNUNETV2_MT_INTENSITY_AUG": "off",  # the phantom's subtypes differ in attenuation
    }


def _empty(folder: Path) -> None:
    """Remove an earlier demo; refuse to touch anything else."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "logs").is_dir():
            raise NNUNet3DCTError(
                f"Demo folder {folder}: expected an empty folder or an earlier demo, found other files."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir()


def _summary(folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
    predictions = folder / "predictions"
    labels = json.loads((predictions / "summary.json").read_text())
    organ = json.loads((predictions / "whole_pancreas_summary.json").read_text())
    classes = json.loads((predictions / "classification_metrics.json").read_text())
    summary = {
        "whole_pancreas_dice": organ["mean"]["whole_pancreas"]["Dice"],
        "pancreas_dice": labels["mean"]["1"]["Dice"],
        "lesion_dice": labels["mean"]["2"]["Dice"],
        "macro_f1": classes["f1_macro"],
        "macro_f1_interval": classes["confidence_intervals"]["f1_macro"],
        "accuracy": classes["accuracy"],
        "n_cases": classes["n_samples"],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    write_json(summary, folder / "summary.json")
    return summary
