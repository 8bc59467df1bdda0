"""Stock ``nnUNetv2_predict`` and ``nnUNet3DCT_predict`` in turns, as whole processes, on the same model and cases.

The cases are phantom crops like those of a real pancreas dataset (median 60×120×182 voxels at 2.0×0.73×0.73 mm); the
network is the one that nnU-Net plans for them (31 million parameters). On the CPU it is trained on single patches
an eighth as large, since random weights give near-ties and understate agreement. A second call with the same
``--work`` takes the model that is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

DATASET, PLANS, CONFIGURATION = "Dataset001_3DCT", "nnUNetPlans", "3d_fullres"
TRAINER = "nnUNetTrainer_CLSHeadLesion"
STOCK = "nnUNetv2_predict"
OURS = {
    "torch f32": ["--backend", "torch", "--precision", "f32"],
    "f32": ["--precision", "f32"],
    "default": [],
    "tta flips": ["--tta", "flips"],
    "tta none": ["--tta", "none"],
    "fast": ["--fast"],
}
WARM = """
import json, sys, time
from pathlib import Path
from nnunet_3dct.inference import Predictor
folder, images, device, options = sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
start = time.perf_counter()
predictor = Predictor(folder, [0], device=device, **options)
loaded = time.perf_counter() - start
files = sorted(images.iterdir())
predictor(files[0])
seconds = []
for file in files:
    start = time.perf_counter()
    stages = predictor(file).seconds
    seconds.append({**stages, "total": time.perf_counter() - start})
print(json.dumps({"loading": loaded, "cases": seconds}))
"""


# training without the validation at its end, and without the lesion head's last fit to whole volumes
TRAIN = """
import os, sys, torch
from nnunetv2.run.run_training import get_trainer_from_args
dataset, configuration, name, plans, device = sys.argv[1:]
torch.set_num_threads(os.cpu_count() if device == "cpu" else 1)
trainer = get_trainer_from_args(dataset, configuration, 0, name, plans, device=torch.device(device))
trainer.refit_head = lambda: None
trainer.oversample_foreground_percent = 1.0  # with one patch a step nnU-Net's third would be none
trainer.run_training()
"""


def main() -> None:
    """Prepare, measure in turns, compare, print a Markdown table and write the figures."""
    args = _parser().parse_args()
    if args.size == "ct":
        args.cases = 1
    if args.quick:
        args.cases, args.train_steps, args.runs = 4, min(args.train_steps, 60), ["default", "fast"]
    args.runs = args.runs or (["tta none", "fast"] if args.size == "ct" else ["f32", "default", "tta flips", "fast"])
    args.work.mkdir(parents=True, exist_ok=True)
    for name in ("raw", "preprocessed", "results"):
        (args.work / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str((args.work / name).resolve())
    os.environ.update(nnUNet_def_n_proc="2", GOMP_SPINCOUNT="30000", NNUNET3DCT_CACHE=str(args.work / "converted"))
    model = prepare(args)
    images = _whole_ct(args) if args.size == "ct" else _cases(args)
    shutil.rmtree(args.work / "converted", ignore_errors=True)
    result = measure(args, images)
    result["first_run_seconds_loading"] = result.pop("first_run")
    warm = {"fast": {"tta": "none", "skip_empty": True}, "default": {}}
    if args.size == "ct":
        warm = {}
    result["warm"] = {name: _warm(model, images, args.device, options) for name, options in warm.items()}
    result["agreement"] = compare(args, images)
    result["machine"] = machine(args.device)
    result["settings"] = {
        "size": args.size,
        "cases": args.cases,
        "train_steps": args.train_steps,
        "rounds": args.rounds,
    }
    print(table(result))
    if args.o:
        args.o.write_text(json.dumps(result, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for data, model and predictions")
    parser.add_argument("-o", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("roi", "ct"), default="roi", help="ct: one volume of 300x512x512 voxels, "
        "without mirroring, and on the CPU without stock, which would take hours")  # fmt: skip
    parser.add_argument("--cases", type=int, default=36, help="to predict. Default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, in turns. Default: %(default)s")
    parser.add_argument("--runs", nargs="+", choices=list(OURS), help="default: by --size")
    parser.add_argument("--train_steps", type=int, default=1000, help="of the network. Default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="4 cases, a short training, fewer runs")
    return parser


def prepare(args: argparse.Namespace) -> Path:
    """Phantom and a model trained on it; returns the model's folder."""
    model = args.work / "results" / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    done = model / "trained"
    if done.is_file():
        return model
    raw = args.work / "raw" / DATASET
    _run(["nnUNet3DCT_phantom", "-o", raw, "--cases", "24", "--val", "36", "-np", "2"])
    _run(["nnUNetv2_plan_and_preprocess", "-d", "1", "-c", CONFIGURATION, "-np", "2", "-npfp", "2"])
    path = args.work / "preprocessed" / DATASET / f"{PLANS}.json"
    plans = json.loads(path.read_text())
    planned = plans["configurations"][CONFIGURATION]
    patch = planned["patch_size"]
    batch_size = planned["batch_size"]
    if args.device == "cpu":
        planned.update(patch_size=[size // 2 for size in patch], batch_size=1)
    path.write_text(json.dumps(plans))
    epochs = max(1, args.train_steps // 50)
    variables = {
        "NNUNETV2_MT_EPOCHS": str(epochs),
        "NNUNETV2_MT_ITERS_PER_EPOCH": str(args.train_steps // epochs),
        "NNUNETV2_MT_VAL_ITERS": "1",
        "NNUNETV2_MT_CLS_VAL_EVERY": str(epochs),
        "NNUNETV2_MT_LR": "0.02",
        "NNUNETV2_MT_INTENSITY_AUG": "off",
        "NNUNETV2_MT_TARGET_LABELS": "lesion",
        "NNUNETV2_MT_SEED": "0",
        "nnUNet_n_proc_DA": str(max(1, (os.cpu_count() or 1) // 2)),
    }
    command = [sys.executable, "-c", TRAIN, DATASET, CONFIGURATION, TRAINER, PLANS, args.device]
    subprocess.run(command, check=True, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
    planned.update(patch_size=patch, batch_size=batch_size)
    (model / "plans.json").write_text(json.dumps(plans))
    done.touch()
    return model


def _cases(args: argparse.Namespace) -> Path:
    source, images = args.work / "raw" / DATASET / "imagesVal", args.work / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    files = sorted(source.iterdir())
    if args.cases > len(files):
        sys.exit(f"error: --cases: expected at most {len(files)}, found {args.cases}")
    for file in files[: args.cases]:
        (images / file.name).symlink_to(file.resolve())
    return images


def _whole_ct(args: argparse.Namespace) -> Path:
    """A body of soft tissue in air with a phantom crop in its middle; 375x526x526 voxels for the network."""
    raw, images, truth = args.work / "raw" / DATASET, args.work / "images_ct", args.work / "labels_ct"
    plans = json.loads((args.work / "preprocessed" / DATASET / f"{PLANS}.json").read_text())
    planned = plans["configurations"][CONFIGURATION]["spacing"]
    old, new = np.array((300, 512, 512)), np.array((375, 526, 526))
    spacing = [float(s * n / o) for s, n, o in zip(planned, new, old, strict=True)]
    rng = np.random.default_rng(0)
    volume = rng.normal(-1000, 10, old).astype(np.float32)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in old[1:]), indexing="ij")
    volume[:, (x / 0.75) ** 2 + (y / 0.5) ** 2 < 1] += 1030
    labels = np.zeros(old, np.uint8)
    crop = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(sorted((raw / "imagesVal").iterdir())[0])))
    crop_labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(sorted((raw / "labelsVal").iterdir())[0])))
    inside = tuple(slice((o - c) // 2, (o - c) // 2 + c) for o, c in zip(old, crop.shape, strict=True))
    volume[inside], labels[inside] = crop, crop_labels
    for folder, array, name in ((images, volume.astype(np.int16), "ct_0000.nii.gz"), (truth, labels, "ct.nii.gz")):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing(spacing[::-1])
        SimpleITK.WriteImage(image, str(folder / name))
    return images


def measure(args: argparse.Namespace, images: Path) -> dict[str, Any]:
    """Seconds and peak memory of whole processes, in turns."""
    flags = ["-d", "1", "-c", CONFIGURATION, "-tr", TRAINER, "-p", PLANS, "-f", "0", "-device", args.device]
    flags += ["--disable_progress_bar"]
    found: dict[str, Any] = {"device": args.device, "runs": {}}
    # the first run of a model converts it; that is paid once and shown apart
    single = args.work / "single"
    shutil.rmtree(single, ignore_errors=True)
    single.mkdir()
    first = sorted(images.iterdir())[0]
    (single / first.name).symlink_to(first.resolve())
    out = args.work / "out" / "first"
    _process(["nnUNet3DCT_predict", "-i", single, "-o", out, *flags, "--fast"])
    found["first_run"] = json.loads((out / "prediction_manifest.json").read_text())["seconds"]["loading"]
    for _ in range(args.rounds):
        for name in _runs(args):
            out = args.work / "out" / name.replace(" ", "_")
            shutil.rmtree(out, ignore_errors=True)
            stock = [STOCK, "--disable_tta"] if args.size == "ct" else [STOCK]
            command = stock if name == STOCK else ["nnUNet3DCT_predict", *OURS[name]]
            seconds, peak = _process([*command, "-i", images, "-o", out, *flags])
            row = found["runs"].setdefault(name, {"seconds": [], "peak_gib": []})
            row["seconds"].append(seconds)
            row["peak_gib"].append(peak)
            if name != STOCK:
                manifest = json.loads((out / "prediction_manifest.json").read_text())
                times = manifest["seconds"]["per_case"].values()
                row["stages"] = {stage: sum(t[stage] for t in times) for stage in ("preprocess", "network", "export")}
                row["stages"]["loading"] = manifest["seconds"]["loading"]
                row["produced_by"] = {k: manifest["produced_by"][k] for k in ("backend", "precision", "tta")}
            print(f"{name}: {seconds:.1f} s, {peak:.2f} GiB", file=sys.stderr, flush=True)
    for row in found["runs"].values():
        if STOCK in found["runs"]:
            turns = zip(found["runs"][STOCK]["seconds"], row["seconds"], strict=True)
            row["ratio"] = statistics.median(stock / own for stock, own in turns)
    return found


def _runs(args: argparse.Namespace) -> list[str]:
    return args.runs if args.size == "ct" and args.device == "cpu" else [STOCK, *args.runs]


def _process(command: list[Any]) -> tuple[float, float]:
    """Seconds and peak memory in GiB of a command with all its processes."""
    peak, done = [0.0], threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen(_program(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], _memory(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if process.returncode != 0:
        sys.exit(f"error: {command[0]} failed:\n{errors.decode()[-2000:]}")
    return seconds, peak[0]


def _memory(root: int) -> float:
    """GiB of a process and its descendants; pages that several share count once."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    family, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    total = 0
    for pid in family:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 2**20


def _warm(model: Path, images: Path, device: str, options: dict[str, Any]) -> dict[str, Any]:
    """Seconds a case once the model is loaded, through the Python class."""
    command = [sys.executable, "-c", WARM, str(model), str(images), device, json.dumps(options)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    cases = found["cases"]
    return {
        "loading": found["loading"],
        "median_seconds_a_case": {key: statistics.median(case[key] for case in cases) for key in cases[0]},
    }


def compare(args: argparse.Namespace, images: Path) -> dict[str, Any]:
    """Dice of each run's labels with stock's and with the ground truth; classes beside those of f32."""
    names = sorted(file.name.replace("_0000.nii.gz", ".nii.gz") for file in images.iterdir())
    folder = {name: args.work / "out" / name.replace(" ", "_") for name in _runs(args)}
    truth = args.work / "labels_ct" if args.size == "ct" else args.work / "raw" / DATASET / "labelsVal"
    reference = "f32" if "f32" in args.runs else args.runs[0]
    beside = STOCK if STOCK in folder else reference
    classes = {name: [_class(folder[name], case) for case in names] for name in args.runs}
    found: dict[str, Any] = {}
    for name in folder:
        found[name] = {
            "dice_to_truth": _dice(folder[name], truth, names),
            "dice_to_stock": _dice(folder[name], folder[beside], names),
        }
        if name != STOCK:
            same = sum(a == b for a, b in zip(classes[name], classes[reference], strict=True))
            found[name][f"same_class_as_{reference}"] = f"{same} of {len(names)}"
    return found


def _class(folder: Path, case: str) -> int:
    return json.loads((folder / case.replace(".nii.gz", "_classification.json")).read_text())["pred"]


def _dice(first: Path, second: Path, names: list[str]) -> dict[str, float]:
    """Mean over the cases; a label that neither has counts as 1."""
    values: dict[str, list[float]] = {"1": [], "2": []}
    for name in names:
        a, b = (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(f / name))) for f in (first, second))
        for label, found in values.items():
            x, y = a == int(label), b == int(label)
            found.append(float(2 * (x & y).sum() / (x.sum() + y.sum())) if x.any() or y.any() else 1.0)
    return {label: float(np.mean(found)) for label, found in values.items()}


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), platform.processor())
    flags = next((x.split() for x in _cpuinfo() if x.startswith("flags")), [])
    found: dict[str, Any] = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "avx512_bf16": "avx512_bf16" in flags,
        "amx": "amx_bf16" in flags,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "nnunetv2", "openvino", "numpy")},
    }
    if device == "cuda":
        import torch

        found.update(gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())
    return found


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| run | seconds | times stock's speed | peak memory [GiB] | Dice to stock (1, 2) | Dice to truth (1, 2) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in result["runs"].items():
        agreement = result["agreement"][name]
        stock, truth = (
            ", ".join(f"{v:.{digits}f}" for v in agreement[key].values())
            for key, digits in (("dice_to_stock", 5), ("dice_to_truth", 4))
        )
        ratio = f"{row.get('ratio', math.nan):.2f}"
        memory = f"{max(row['peak_gib']):.2f}"
        lines.append(f"| {name} | {statistics.median(row['seconds']):.1f} | {ratio} | {memory} | {stock} | {truth} |")
    for name, row in result["warm"].items():
        lines.append(f"\nWarm, {name}: {row['median_seconds_a_case']['total']:.2f} s a case (median).")
    return "\n".join(lines)


def _run(command: list[Any]) -> None:
    subprocess.run(_program(command), check=True, stdout=subprocess.DEVNULL)


def _program(command: list[Any]) -> list[str]:
    parts = [str(part) for part in command]
    return [str(Path(sys.executable).parent / parts[0]), *parts[1:]]


if __name__ == "__main__":
    main()
