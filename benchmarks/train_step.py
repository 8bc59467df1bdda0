"""Time one training step of each multi-task trainer beside stock nnU-Net's, in turns, in one run.

A phantom is planned by nnU-Net itself, so the network and the patch are those of a real pancreas dataset (31 million
parameters). Each trainer lives in a process of its own, which gives its peak memory; only one works at a
time. In every round each takes one step on the same batch; the ratio is the median over the rounds of its time by
stock's in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from processes import machine, run

from nnunet_3dct.runtime import keep_freed_memory

DATASET = "Dataset001_3DCT"
PLANS, CONFIGURATION = "nnUNetPlans", "3d_fullres"
STOCK = "nnUNetTrainer"
HEADS = ("Sum", "SumFT", "Simple", "SepOpt", "MA", "Lesion")


def main() -> None:
    """Prepare, measure, print a Markdown table and write the figures."""
    args = _parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _prepare(root, args.patch, args.batch_size)
        trainers = [f"nnUNetTrainer_CLSHead{name}" for name in args.trainers]
        result = (measure_in_pairs if args.pairs else measure)(args.device, args.rounds, trainers, args.kept_memory)
    result["machine"] = machine(args.device)
    print(_table(result))
    if args.o:
        args.o.write_text(json.dumps(result, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each trainer. Default: %(default)s")
    parser.add_argument("--trainers", nargs="+", choices=HEADS, default=HEADS, metavar="HEAD",
                        help="those named CLSHead...; %(choices)s. Default: all")  # fmt: skip
    parser.add_argument("--patch", type=int, nargs=3, metavar=("Z", "Y", "X"), help="default: nnU-Net's plan")
    parser.add_argument("--batch_size", type=int, help="default: nnU-Net's plan")
    parser.add_argument("--pairs", action="store_true", help="each trainer beside a stock process of its own, one "
                        "pair after the other, where the memory does not hold all at once")  # fmt: skip
    parser.add_argument("--kept_memory", action="store_true", help="stock's process keeps freed memory too, as "
                        "those of this project do on the CPU; the ratio is then that of the work alone")  # fmt: skip
    parser.add_argument("-o", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


def _prepare(root: Path, patch: list[int] | None, batch_size: int | None) -> None:
    """A planned and preprocessed phantom below ``root``; sets nnU-Net's variables."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ.update(nnUNet_def_n_proc="2", nnUNet_n_proc_DA="1", GOMP_SPINCOUNT="30000")
    run(["nnUNet3DCT_phantom", "-o", root / "raw" / DATASET, "--cases", "6", "--val", "1"])
    run(["nnUNetv2_plan_and_preprocess", "-d", "1", "-c", CONFIGURATION, "-np", "2"])
    path = root / "preprocessed" / DATASET / f"{PLANS}.json"
    plans = json.loads(path.read_text())
    full = plans["configurations"][CONFIGURATION]
    full["patch_size"] = patch or full["patch_size"]
    full["batch_size"] = batch_size or full["batch_size"]
    path.write_text(json.dumps(plans))
    os.environ["nnUNet_n_proc_DA"] = "0"


def measure_in_pairs(device: str, rounds: int, trainers: Sequence[str], kept_memory: bool) -> dict[str, Any]:
    """As :func:`measure`, never more than two trainers at a time; stock's seconds are those of all pairs."""
    found: dict[str, Any] = {"device": device, "rounds": rounds, "pairs": True, "kept_memory": kept_memory}
    found["trainers"] = {}
    seconds: list[float] = []
    for name in trainers:
        pair = measure(device, rounds, [name], kept_memory)["trainers"]
        seconds += pair[STOCK]["seconds"]
        found["trainers"][STOCK] = {**pair[STOCK], "seconds": seconds}
        found["trainers"][name] = pair[name]
    return found


def measure(device: str, rounds: int, trainers: Sequence[str], kept_memory: bool) -> dict[str, Any]:
    """Seconds of every step, ratio to stock, peak memory and parameters of each trainer."""
    context = get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name in (STOCK, *trainers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, name, device, kept_memory), daemon=True)
        process.start()
        theirs.close()  # so that a process that died is noticed
        pipes[name], _ = ours, processes.append(process)
        about = ours.recv()  # one after the other, so that no start disturbs another
        print(f"{name}: {about}", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    names = list(pipes)
    for n in range(rounds):
        for name in names[n % len(names) :] + names[: n % len(names)]:
            seconds[name].append(_ask(pipes[name], "step"))
        print(f"round {n + 1}: { ({k: round(v[-1], 3) for k, v in seconds.items()}) }", file=sys.stderr)
    found: dict[str, Any] = {"device": device, "rounds": rounds, "kept_memory": kept_memory, "trainers": {}}
    for name in names:
        ratios = [own / stock for own, stock in zip(seconds[name], seconds[STOCK], strict=True)]
        about = _ask(pipes[name], "stop")
        found["trainers"][name] = {
            "seconds": seconds[name],
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            **about,
        }
    for process in processes:
        process.join()
    return found


def _ask(pipe: Connection, what: str) -> Any:
    pipe.send(what)
    return pipe.recv()


def _work(pipe: Connection, name: str, device: str, kept_memory: bool) -> None:
    """One trainer: warm up, then take a step whenever asked."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for the life of this process
    if device == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
        if kept_memory:
            keep_freed_memory()
    else:
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True
    recursive_find_trainer_class_by_name(name).from_checkpoint = False  # where training starts changes no step
    torch.manual_seed(0)
    trainer = get_trainer_from_args(DATASET, CONFIGURATION, 0, name, PLANS, device=torch.device(device))
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    batch = next(trainer.dataloader_train)

    def step() -> float:
        start = time.perf_counter()
        trainer.train_step(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(1 if device == "cpu" else 10):
        step()
    shape = list(batch["data"].shape)
    pipe.send({"batch": shape})
    while pipe.recv() == "step":
        pipe.send(step())
        if device == "cuda":
            torch.cuda.empty_cache()  # seven processes share the card; they work one at a time
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    network = trainer.network
    pipe.send(
        {
            "peak_mib": peak,
            "parameters": sum(p.numel() for p in network.parameters()),
            "batch": shape,
        }
    )
    pipe.close()


def _table(result: dict[str, Any]) -> str:
    stock = result["trainers"][STOCK]
    lines = [
        f"One training step, batch {stock['batch']}, {result['device']}, {result['rounds']} rounds, "
        f"{result['machine']}",
        "",
        "| trainer | step [s] | ratio to stock (lowest, highest round) | peak memory [MiB] | parameters of the head |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in result["trainers"].items():
        low, high = row["ratio_range"]
        lines.append(
            f"| `{name}` | {statistics.median(row['seconds']):.3f} | {row['ratio']:.3f} ({low:.2f} to {high:.2f}) | "
            f"{row['peak_mib']:.0f} | {row['parameters'] - stock['parameters']:,} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
