"""All heads and the probe under one budget: one stage 1, then every trainer with several seeds, on one fold.

Each finished run is kept below ``--work``, so that a stopped comparison goes on where it was. Trainers from scratch
get the iterations of both stages, at stage 1's rate. ``--jobs`` trainings run side by side, each with its share of the
cores; the seconds they take are not comparable and not reported.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.evaluation.bootstrap import draw_counts, percentile_interval
from nnunet_3dct.evaluation.resampled_metrics import resampled_metrics
from nnunet_3dct.formats.class_files import class_file_path, classified_in, read_class_file
from nnunet_3dct.formats.metrics_class import CLASSIFICATION_METRICS

STAGE_1 = "nnUNetTrainer_Stage1"
FROM_SCRATCH = ("nnUNetTrainer_CLSHeadSum",)
TRAINERS = [f"nnUNetTrainer_CLSHead{n}" for n in ("Sum", "SumFT", "Simple", "SepOpt", "MA", "Lesion")]
OURS, REFERENCE = "nnUNetTrainer_CLSHeadLesion", "nnUNetTrainer_CLSHeadSumFT"
PLANS, CONFIGURATION = "nnUNetPlansTiny", "3d_fullres"
RESAMPLES = 2000
UNREPORTED = (
    "work",
    "o",
    "jobs",
    "seeds",
    "trainers",
    "hippocampus",
    "start",
    "splits",
)  # paths, and what a resumed call adds

# nnUNetv2_train gives every process all cores, by what this function says
TRAIN = """
import multiprocessing, os
multiprocessing.cpu_count = lambda: int(os.environ["CORES"])
from nnunetv2.run.run_training import run_training_entry
run_training_entry()
"""


def main() -> None:
    """Prepare, train what is missing, probe, gather."""
    args = _parser().parse_args()
    if bool(args.start) != bool(args.splits):
        sys.exit("error: --start and --splits go together, or stage 1 might have seen the cases that are held out.")
    args.work.mkdir(parents=True, exist_ok=True)
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str((args.work / name).resolve())
    os.environ.update(nnUNet_def_n_proc="2", nnUNet_n_proc_DA="1", GOMP_SPINCOUNT="30000")
    _require_same_settings(args)
    dataset = _prepare(args)
    stage_1 = _fold(args, args.work / "results", dataset, STAGE_1)
    if args.start and not stage_1.parent.exists():
        stage_1.parent.parent.mkdir(parents=True, exist_ok=True)
        stage_1.parent.symlink_to(args.start.resolve())
    if not (stage_1 / "validation" / "summary.json").is_file():
        _train(args, dataset, STAGE_1, args.stage_1, args.lr_1, 0, args.work / "results")
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = [
            pool.submit(_compare, args, dataset, trainer, seed, stage_1 / "checkpoint_final.pth")
            for seed in range(args.seeds)
            for trainer in args.trainers
        ]
    for run in runs:
        run.result()
    probe = args.work / "probe.json"
    if not probe.is_file():
        command = ["nnUNet3DCT_probe", "-d", dataset, "-tr", STAGE_1, "-p", PLANS, "-f", str(args.fold)]
        command += ["-device", "cpu"]
        labels = ["--target_labels", args.target_labels] if args.target_labels else []
        _run([*command, "-o", str(probe), *labels], {})
    result = gather(args, dataset, stage_1)
    print(table(result))
    args.o.write_text(json.dumps(result, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("-o", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--hippocampus", type=Path, help="raw Dataset004_Hippocampus; default: the hard phantom")
    parser.add_argument("--cases", type=int, default=120, help="of the phantom. Default: %(default)s")
    parser.add_argument("--phantom_seed", type=int, default=100)
    parser.add_argument("--spacing", type=float, nargs=3, default=(3.0, 1.5, 1.5), help="of the phantom's plan [mm]")
    parser.add_argument("--patch", type=int, nargs=3, help="in place of the plan's [voxels]")
    parser.add_argument("--start", type=Path, help="model folder of a stage 1 of the same plan; default: train it")
    parser.add_argument("--splits", type=Path, help="splits_final.json of that stage 1; default: nnUNet3DCT_splits")
    parser.add_argument("--folds", type=int, default=3, help="one of so many is held out. Default: %(default)s")
    parser.add_argument("--fold", type=int, default=0, help="that one. Default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scratch", type=int, help="iterations of those. Default: those of both stages")
    parser.add_argument("--stage_1", type=int, default=900, help="iterations. Default: %(default)s")
    parser.add_argument("--stage_2", type=int, default=400, help="iterations. Default: %(default)s")
    parser.add_argument("--lr_1", type=float, default=0.05)
    parser.add_argument("--lr_2", type=float, help="default: each trainer's own")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--intensity_aug", choices=("on", "off"), default="off")
    parser.add_argument("--target_labels", help="as NNUNETV2_MT_TARGET_LABELS")
    parser.add_argument("--trainers", nargs="+", default=TRAINERS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings side by side")
    return parser


def _require_same_settings(args: argparse.Namespace) -> None:
    """Runs of other settings in the work folder are not taken for these."""
    settings = {k: str(v) for k, v in vars(args).items() if k not in ("work", "o", "seeds", "trainers", "jobs")}
    path = args.work / "settings.json"
    if not path.is_file():
        path.write_text(json.dumps(settings, indent=2))
    elif json.loads(path.read_text()) != settings:
        sys.exit(f"error: {path} holds other settings than asked for; give another folder with --work.")


def _run(command: list[str], variables: dict[str, str]) -> None:
    program = shutil.which(command[0], path=str(Path(sys.executable).parent)) or command[0]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NNUNETV2_")}
    subprocess.run([program, *command[1:]], check=True, env={**inherited, **variables}, stdout=subprocess.DEVNULL)


def _prepare(args: argparse.Namespace) -> str:
    """The planned dataset; returns its name."""
    dataset = "Dataset004_Hippocampus" if args.hippocampus else "Dataset001_3DCT"
    preprocessed = args.work / "preprocessed" / dataset
    plans_file = preprocessed / f"{PLANS}.json"
    if (args.work / "prepared").is_file():
        return dataset
    raw = args.work / "raw" / dataset
    spacing: list[str] = []
    if args.hippocampus:
        shutil.copytree(args.hippocampus, raw, copy_function=shutil.copyfile, dirs_exist_ok=True)
    else:
        phantom = ["nnUNet3DCT_phantom", "-o", str(raw), "--cases", str(args.cases), "--val", "1"]
        _run([*phantom, "--seed", str(args.phantom_seed), "--difficulty", "hard"], {})
        spacing = ["-overwrite_target_spacing", *map(str, args.spacing)]
    number = str(int(dataset[7:10]))
    plan = ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", CONFIGURATION, "-pl", "TinyUNetPlanner"]
    _run([*plan, *spacing, "-gpu_memory_target", "1", "-np", "2", "-npfp", "2"], {})
    if args.splits:
        shutil.copyfile(args.splits, preprocessed / "splits_final.json")
    else:
        _run(["nnUNet3DCT_splits", "-d", number, "-k", str(args.folds)], {})
    plans = json.loads(plans_file.read_text())
    plans["configurations"][CONFIGURATION]["batch_size"] = args.batch_size
    if args.patch:
        plans["configurations"][CONFIGURATION]["patch_size"] = args.patch
    plans_file.write_text(json.dumps(plans))
    (args.work / "prepared").touch()
    return dataset


def _train(
    args: argparse.Namespace,
    dataset: str,
    trainer: str,
    iterations: int,
    lr: float | None,
    seed: int,
    results: Path,
    stage_1: Path | None = None,
) -> None:
    epochs = max(1, iterations // 100)
    variables = {
        "nnUNet_results": str(results.resolve()),
        "NNUNETV2_MT_EPOCHS": str(epochs),
        "NNUNETV2_MT_ITERS_PER_EPOCH": str(iterations // epochs),
        "NNUNETV2_MT_VAL_ITERS": "2",
        "NNUNETV2_MT_CLS_VAL_EVERY": str(epochs),
        "NNUNETV2_MT_SEED": str(seed),
        "NNUNETV2_MT_INTENSITY_AUG": args.intensity_aug,
    }
    if lr is not None:
        variables["NNUNETV2_MT_LR"] = str(lr)
    if args.target_labels:
        variables["NNUNETV2_MT_TARGET_LABELS"] = args.target_labels
    if stage_1 is not None:
        variables["NNUNETV2_PRE_CHECKPOINT_PATH"] = str(stage_1.resolve())
    cores = max(1, (os.cpu_count() or 1) // (args.jobs if trainer != STAGE_1 else 1))
    start = time.perf_counter()
    arguments = [dataset, CONFIGURATION, str(args.fold), "-tr", trainer, "-p", PLANS, "-device", "cpu"]
    _run([sys.executable, "-c", TRAIN, *arguments], {**variables, "CORES": str(cores)})
    print(f"{trainer} seed {seed}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def _compare(args: argparse.Namespace, dataset: str, trainer: str, seed: int, stage_1: Path) -> None:
    """Train one of the trainers, unless that is done."""
    results = args.work / f"seed_{seed}"
    fold = _fold(args, results, dataset, trainer)
    if (fold / "validation" / CLASSIFICATION_METRICS).is_file():
        return
    shutil.rmtree(fold, ignore_errors=True)
    scratch = trainer in FROM_SCRATCH
    iterations = (args.scratch or args.stage_1 + args.stage_2) if scratch else args.stage_2
    _train(args, dataset, trainer, iterations, args.lr_1 if scratch else args.lr_2, seed, results, stage_1)


def _fold(args: argparse.Namespace, results: Path, dataset: str, trainer: str) -> Path:
    return results / dataset / f"{trainer}__{PLANS}__{CONFIGURATION}" / f"fold_{args.fold}"


def gather(args: argparse.Namespace, dataset: str, stage_1: Path) -> dict[str, Any]:
    """Means over all seeds that were run; intervals over cases, drawn alike for every trainer and seed."""
    labels = json.loads((args.work / "raw" / dataset / "classification.json").read_text())
    found: dict[str, Any] = {
        "dataset": dataset,
        "settings": {name: value for name, value in vars(args).items() if name not in UNREPORTED},
        "stage_1_dice": _dice(stage_1),
        "trainers": {},
        "probe": json.loads((args.work / "probe.json").read_text())["scores"],
    }
    bootstrap: dict[str, np.ndarray] = {}
    for trainer in TRAINERS:
        seeds = range(len(list(args.work.glob("seed_*"))))
        folds = [_fold(args, args.work / f"seed_{seed}", dataset, trainer) for seed in seeds]
        folds = [fold for fold in folds if (fold / "validation" / CLASSIFICATION_METRICS).is_file()]
        if not folds:
            continue
        resampled, scores = [], []
        for fold in folds:
            truth, probs = _predictions(fold / "validation", labels)
            counts = draw_counts(truth, RESAMPLES, 0)
            resampled.append(resampled_metrics(counts, truth, probs.argmax(1), probs)["f1_macro"])
            metrics = json.loads((fold / "validation" / CLASSIFICATION_METRICS).read_text())
            scores.append({key: metrics[key] for key in ("f1_macro", "balanced_accuracy", "auc_macro")})
        bootstrap[trainer] = np.mean(resampled, axis=0)
        dice = [_dice(fold) for fold in folds]
        found["trainers"][trainer] = {
            "dice": [d["mean"] for d in dice],
            "dice_per_label": {label: float(np.mean([d[label] for d in dice])) for label in dice[0]},
            **{key: [score[key] for score in scores] for key in scores[0]},
            "f1_macro_interval": percentile_interval(bootstrap[trainer]),
            "n_cases": len(truth),
        }
    if {OURS, REFERENCE} <= set(bootstrap):
        difference = bootstrap[OURS] - bootstrap[REFERENCE]
        found["ours_minus_grid_f1"] = {
            "value": float(
                np.mean(found["trainers"][OURS]["f1_macro"]) - np.mean(found["trainers"][REFERENCE]["f1_macro"])
            ),
            "interval": percentile_interval(difference),
        }
    return found


def _dice(fold: Path) -> dict[str, float]:
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    per_label = {label: metrics["Dice"] for label, metrics in summary["mean"].items()}
    return {**per_label, "mean": summary["foreground_mean"]["Dice"]}


def _predictions(folder: Path, labels: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    cases = classified_in(folder)
    probs = [read_class_file(class_file_path(folder, case)).probabilities for case in cases]
    return np.array([int(labels[case]) for case in cases]), np.array(probs)


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"{result['dataset']}; stage 1 alone: Dice {result['stage_1_dice']['mean']:.3f}",
        "",
        "| trainer | mean Dice | macro-F1 (95 % interval) | of each seed | balanced accuracy | AUC |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in result["trainers"].items():
        low, high = row["f1_macro_interval"]
        each = ", ".join(f"{value:.2f}" for value in row["f1_macro"])
        lines.append(
            f"| `{name}` | {np.mean(row['dice']):.3f} | {np.mean(row['f1_macro']):.3f} ({low:.2f} to {high:.2f}) | "
            f"{each} | {np.mean(row['balanced_accuracy']):.3f} | {np.mean(row['auc_macro']):.3f} |"
        )
    for name, row in result["probe"].items():
        low, high = row["confidence_intervals"]["f1_macro"]
        lines.append(
            f"| probe of stage 1: {name} | | {row['f1_macro']:.3f} ({low:.2f} to {high:.2f}) | | "
            f"{row['balanced_accuracy']:.3f} | {row['auc_macro']:.3f} |"
        )
    if "ours_minus_grid_f1" in result:
        low, high = result["ours_minus_grid_f1"]["interval"]
        lines += [
            "",
            f"`{OURS}` minus `{REFERENCE}`: macro-F1 {result['ours_minus_grid_f1']['value']:+.3f} "
            f"({low:+.2f} to {high:+.2f})",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
