"""Why the published grid head stays at chance in short trainings: it alone, on the fixed features of a stage-1 network.

Needs the work folder of benchmarks/heads.py. One window of every case, no augmentation; the head is trained on the
training cases with the optimiser of the trainers, and scored on the validation cases.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import nn

STAGE_1 = "nnUNetTrainer_Stage1__nnUNetPlansTiny__3d_fullres"


def main() -> None:
    """Extract, fit, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="work folder of benchmarks/heads.py")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch_size", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str((args.work / name).resolve())
    model = next((args.work / "results").glob(f"*/{STAGE_1}"))
    data = {part: _features(args.work, model, part) for part in ("train", "val")}
    cells = [stage.flatten(1) for stage in data["train"][0]]
    print("| scale | cells | mean | spread over cells | spread over cases | squared length |")
    print("| --- | --- | --- | --- | --- | --- |")
    for n, x in enumerate(cells):
        spread = f"{x.mean(0).std():.2f} | {x.std(0).mean():.2f} | {x.square().sum(1).mean():.0f}"
        print(f"| {n} | {x.shape[1]} | {x.mean():.2f} | {spread} |")
    print("\n| head | rate | training loss, last 100 steps | validation loss | macro-F1 |")
    print("| --- | --- | --- | --- | --- |")
    for standardize in (False, True):
        for rate in (1e-3, 1e-2):
            found = np.array([_fit(data, standardize, rate, args, seed) for seed in range(args.seeds)])
            texts = [f"{np.mean(c):.3f} ({np.min(c):.2f} to {np.max(c):.2f})" for c in found.T]
            name = "grid, standardised" if standardize else "grid, as published"
            print(f"| {name} | {rate:g} | " + " | ".join(texts) + " |", flush=True)


def _features(work: Path, model: Path, part: str) -> tuple[Any, torch.Tensor]:
    """Features of the first window of every case, and the classes."""
    from nnunet_3dct.networks.heads import UNetFeatures
    from nnunet_3dct.probe.features import FeatureExtractor

    base = work / "preprocessed" / model.parent.name
    labels = json.loads((work / "raw" / model.parent.name / "classification.json").read_text())
    cases = json.loads((base / "splits_final.json").read_text())[0][part]
    extractor = FeatureExtractor(model, 0, "checkpoint_final.pth", None, torch.device("cpu"))
    pool = nn.AdaptiveMaxPool3d(4)
    rows: list[list[torch.Tensor]] = []
    seen: list[list[torch.Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[UNetFeatures]) -> None:
        stages = inputs[0]
        seen.append([pool(stage).clone() for stage in (stages.encoder[-1], *stages.decoder)])

    handle = extractor._recorder.network.cls_head.register_forward_pre_hook(keep)
    for _ in extractor.extract(base, cases):
        rows.append(seen[0])
        seen.clear()
    handle.remove()
    stages = [torch.cat(scale) for scale in zip(*rows, strict=True)]
    return stages, torch.tensor([int(labels[case]) for case in cases])


def _fit(data: dict[str, Any], standardize: bool, rate: float, args: argparse.Namespace, seed: int) -> list[float]:
    from nnunet_3dct.networks.heads import FeatureSpec, UNetFeatures, build_head

    stages, y = data["train"]
    channels = [stage.shape[1] for stage in stages]
    torch.manual_seed(seed)
    head = build_head("grid", FeatureSpec((channels[0],), tuple(channels[1:]), 3), 3, standardize=standardize)
    optimizer = torch.optim.SGD(head.parameters(), rate, 0.99, nesterov=True, weight_decay=3e-5)
    losses = []
    for step in range(args.steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / args.steps) ** 0.9
        drawn = torch.randint(len(y), (args.batch_size,))
        features = UNetFeatures([stages[0][drawn]], [stage[drawn] for stage in stages[1:]], torch.empty(0))
        loss = nn.functional.cross_entropy(head(features), y[drawn])
        optimizer.zero_grad()
        (0.3 * loss).backward()
        nn.utils.clip_grad_norm_(head.parameters(), 12)
        optimizer.step()
        losses.append(float(loss.detach()))
    stages, truth = data["val"]
    with torch.no_grad():
        logits = head.eval()(UNetFeatures([stages[0]], stages[1:], torch.empty(0)))
    f1 = f1_score(truth, logits.argmax(1), average="macro", zero_division=0)
    return [float(np.mean(losses[-100:])), float(nn.functional.cross_entropy(logits, truth)), float(f1)]


if __name__ == "__main__":
    main()
