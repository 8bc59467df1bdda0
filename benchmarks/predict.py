"""Stock ``nnUNetv2_predict`` and ``nnUNet3DCT_predict`` in turns, as whole processes, on the same model and cases.

The cases are phantom crops like those of a real pancreas dataset (median 60×120×182 voxels at 2.0×0.73×0.73 mm); the
network is the one that nnU-Net plans for them (31 million parameters). It is trained, since random weights give
near-ties and understate agreement, and at last on whole patches: one that has seen small patches alone is unsure on
large ones. A second call with the same ``--work`` takes the model that is there.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from prediction_model import CONFIGURATION, PLANS, TRAINER, prepare, roi_cases, set_folders, whole_ct
from processes import machine, timed

STOCK = "nnUNetv2_predict"
OURS = {
    "torch f32": ["--backend", "torch", "--precision", "f32"],
    "f32": ["--precision", "f32"],
    "default": [],
    "tta flips": ["--tta", "flips"],
    "tta pair": ["--tta", "pair"],
    "tta none": ["--tta", "none"],
    "fast": ["--fast"],
}
RUNS = {
    "roi": ["f32", "default", "tta flips", "tta none", "fast"],
    "ct": ["tta none", "fast"],
    "quick": ["default", "fast"],
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


def main() -> None:
    """Prepare, measure in turns, compare, print a Markdown table and write the figures."""
    args = _parser().parse_args()
    set_folders(args.work)
    small, full = args.training_steps or ((60, 0) if args.quick else (1000, 500))
    model = prepare(args.work, args.device, small, full)
    if args.size == "ct":
        images, truth = whole_ct(args.work)
    else:
        images, truth = roi_cases(args.work, args.cases or (4 if args.quick else 36))
    runs = args.runs or RUNS["quick" if args.quick else args.size]
    if args.size == "roi" or args.device == "cuda":
        runs = [STOCK, *runs]
    shutil.rmtree(args.work / "converted", ignore_errors=True)
    result = measure(args, images, runs)
    warm = {} if args.size == "ct" else {"fast": {"tta": "pair", "skip_empty": True}, "default": {}}
    result["warm"] = {name: _warm(model, images, args.device, options) for name, options in warm.items()}
    result["agreement"] = compare(args.work / "out", images, truth, runs)
    result["machine"] = machine(args.device)
    result["settings"] = {
        "size": args.size,
        "cases": len(list(images.iterdir())),
        "training_steps": json.loads((model / "trained").read_text()),
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
    parser.add_argument("--cases", type=int, help="to predict with --size roi. Default: 36, or 4 with --quick")
    parser.add_argument("--training_steps", type=int, nargs=2, metavar=("SMALL", "WHOLE"), help="of the network, on "
        "patches an eighth as large, then on whole ones. Default: 1000 500, or 60 0 with --quick")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, in turns. Default: %(default)s")
    parser.add_argument("--runs", nargs="+", choices=list(OURS), help="default: by --size and --quick")
    parser.add_argument("--quick", action="store_true", help="few cases, a short training, fewer runs")
    return parser


def measure(args: argparse.Namespace, images: Path, runs: list[str]) -> dict[str, Any]:
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
    timed(["nnUNet3DCT_predict", "-i", single, "-o", out, *flags, "--fast"])
    found["first_run_seconds_loading"] = json.loads((out / "prediction_manifest.json").read_text())["seconds"][
        "loading"
    ]
    for _ in range(args.rounds):
        for name in runs:
            out = args.work / "out" / name.replace(" ", "_")
            shutil.rmtree(out, ignore_errors=True)
            stock = [STOCK, "--disable_tta"] if args.size == "ct" else [STOCK]
            command = stock if name == STOCK else ["nnUNet3DCT_predict", *OURS[name]]
            seconds, peak = timed([*command, "-i", images, "-o", out, *flags])
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


def compare(out: Path, images: Path, truth: Path, runs: list[str]) -> dict[str, Any]:
    """Dice of each run's labels with stock's and with the ground truth; classes beside those of f32."""
    names = sorted(file.name.replace("_0000.nii.gz", ".nii.gz") for file in images.iterdir())
    folder = {name: out / name.replace(" ", "_") for name in runs}
    ours = [name for name in runs if name != STOCK]
    reference = "f32" if "f32" in ours else ours[0]
    beside = STOCK if STOCK in runs else reference
    classes = {name: [_class(folder[name], case) for case in names] for name in ours}
    found: dict[str, Any] = {}
    for name in runs:
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


if __name__ == "__main__":
    main()
