"""Why the published heads stay at chance in a short training: each alone, on the fixed features of a stage-1 network.

Patches are drawn and augmented by the trainers' own data loader and shown to each head once, as in a training, with the
optimiser, schedule, class weights and clipping of its trainer. Only the network stands still, so that what the heads
read of each patch is computed once. Scores are those of the validation cases as whole volumes. Beside them stands what
linear discriminant analysis reaches on what the head reads of the same patches.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import f1_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from nnunet_3dct.formats.class_labels import UNKNOWN
from nnunet_3dct.inference.recording import Recorder, recording_predictor
from nnunet_3dct.training import variants
from nnunet_3dct.training.class_loss import as_tensor, class_loss, class_weights
from nnunet_3dct.training.steps import LARGEST_NORM

HEADS = ("SumFT", "Simple", "SepOpt", "MA")
PER_EPOCH = 100
COMPONENTS = 100  # principal ones that LDA takes of more features than WIDE
WIDE = 256
CONFIGURATION = "3d_fullres"
MODES = {"off": "as published", "on": "ours"}
Summary = list[Tensor]


def main() -> None:
    """Compute what the heads read, train each alone, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model folder of a trained stage 1")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--intensity_aug", choices=("on", "off"), default="off")
    parser.add_argument("-o", type=Path, required=True, help="JSON file for the figures")
    args = parser.parse_args()
    os.environ["NNUNETV2_PRE_CHECKPOINT_PATH"] = str(args.model / f"fold_{args.fold}" / "checkpoint_final.pth")
    os.environ["NNUNETV2_MT_INTENSITY_AUG"] = args.intensity_aug
    os.environ["NNUNETV2_MT_EPOCHS"] = str(max(1, args.iterations // PER_EPOCH))
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results
        with contextlib.redirect_stdout(sys.stderr):  # nnU-Net's messages
            features = Features(args)
        result = {"dataset": features.dataset, "settings": {**vars(args), "model": args.model.name, "o": None}}
        result |= {"cases": features.counts, "spread": features.spread(), "heads": {}}
        print(table_of_spread(result["spread"]), "\n\n| head | " + " | ".join(COLUMNS) + " |", flush=True)
        print("| --- |" + " --- |" * len(COLUMNS))
        for name in args.heads:
            for mode in MODES:
                row = [train(features, name, mode, args, seed) for seed in range(args.seeds)]
                result["heads"][f"{name}, {MODES[mode]}"] = row
                print(line(f"`CLSHead{name}`, {MODES[mode]}", row), flush=True)
            row = [discriminant(features, name)]
            result["heads"][f"{name}, LDA"] = row
            print(line(f"LDA on what `CLSHead{name}` reads", row), flush=True)
    args.o.write_text(json.dumps(result, indent=2) + "\n")


COLUMNS = ("training loss, last 100 steps", "validation loss", "macro-F1", "AUC")


class Features:
    """What each head reads of the patches of a training and of the windows of the validation cases."""

    def __init__(self, args: argparse.Namespace) -> None:
        plans = json.loads((args.model / "plans.json").read_text())
        plans["configurations"][CONFIGURATION]["batch_size"] = args.batch_size
        dataset_json = json.loads((args.model / "dataset.json").read_text())
        self._arguments = (CONFIGURATION, args.fold, dataset_json, torch.device("cpu"))
        self._plans = plans
        self.dataset = plans["dataset_name"]
        trainers = {name: self.trainer(name, "on", 0) for name in args.heads}
        trainer = next(iter(trainers.values()))
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        trainer.progress.close()
        self.network = trainer.multitask_network.eval()
        self.network.decoder.deep_supervision = False
        self.heads = {name: trainer.multitask_network.cls_head for name, trainer in trainers.items()}
        self.num_classes, self.counts = trainer.num_classes, trainer.fold_labels.counts(trainer.num_classes)
        self._draw(trainer, args.iterations)
        self._run_volumes(trainer, dataset_json)

    def trainer(self, name: str, mode: str, seed: int) -> Any:
        """A trainer with network, head and optimiser."""
        os.environ.update(NNUNETV2_MT_STANDARDIZE=mode, NNUNETV2_MT_SEED=str(seed))
        made = getattr(variants, f"nnUNetTrainer_CLSHead{name}")(
            {**self._plans, "continue_training": False}, *self._arguments
        )
        made.initialize()
        return made

    @torch.no_grad()
    def _summarize(self, data: Tensor) -> tuple[Tensor, dict[str, Summary]]:
        logits, features = self.network.segment_with_features(data)
        return logits, {name: list(head.summarize(features)) for name, head in self.heads.items()}

    def _draw(self, trainer: Any, iterations: int) -> None:
        rows, classes, shown = [], [], []
        for _ in range(iterations):
            batch = next(trainer.dataloader_train)
            target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
            shown.append(trainer.target_labels.in_patch(target))
            classes.append(torch.tensor([trainer.class_labels.by_case[str(key)] for key in batch["keys"]]))
            rows.append(self._summarize(batch["data"])[1])
        self.training, self.classes, self.shown = _joined(rows), torch.cat(classes), torch.cat(shown)

    def _run_volumes(self, trainer: Any, dataset_json: dict[str, Any]) -> None:
        known = {case: label for case, label in trainer.fold_labels.validation.items() if label != UNKNOWN}
        recorder = _Windows(self._summarize, self.network, trainer.target_labels)
        managers = trainer.plans_manager, trainer.configuration_manager
        predictor = recording_predictor(recorder, *managers, dataset_json, torch.device("cpu"))
        data = trainer.dataset_class(trainer.preprocessed_dataset_folder, list(known))
        rows, shares = [], []
        for number, case in enumerate(known):
            predictor.predict_sliding_window_return_logits(torch.tensor(np.asarray(data.load_case(case)[0][:])))
            windows = recorder.passes[-(recorder.windows or 1) :]
            voxels = np.array([float(target) for _, target in windows])
            share = np.zeros((len(known), len(windows)))
            share[number] = voxels / voxels.sum() if voxels.any() else 1 / len(windows)
            rows += [row for row, _ in windows]
            shares.append(share)
        self.validation, self.truth = _joined(rows), np.array(list(known.values()))
        self.shares = np.concatenate(shares, axis=1)

    def spread(self) -> dict[str, dict[str, float]]:
        """Level of what a head reads, how it differs from feature to feature, and from patch to patch."""
        found = {}
        for name in self.heads:
            for number, stage in enumerate(self.training[name]):
                x = stage.flatten(1)
                key = f"{name} {number}" if len(self.training[name]) > 1 else name
                parts = {"features": x.shape[1], "level": x.mean(), "between_features": x.mean(0).std()}
                found[key] = {k: float(v) for k, v in {**parts, "between_patches": x.std(0).mean()}.items()}
        return found

    def score(self, windows: np.ndarray, training_loss: float) -> dict[str, float]:
        """Of class probabilities of all windows."""
        probs = self.shares @ windows
        auc = roc_auc_score(self.truth, probs[:, 1] if self.num_classes == 2 else probs, multi_class="ovr")
        f1 = f1_score(self.truth, probs.argmax(1), average="macro", zero_division=0)
        loss = log_loss(self.truth, probs, labels=range(self.num_classes))
        return dict(zip(COLUMNS, map(float, (training_loss, loss, f1, auc)), strict=True))


class _Windows(Recorder):
    def __init__(self, summarize: Any, network: torch.nn.Module, target: Any) -> None:
        super().__init__(network, target)
        self._summarize = summarize
        self.passes: list[tuple[dict[str, Summary], Tensor]] = []

    def clear(self) -> None:
        self.passes.clear()

    def forward(self, x: Tensor) -> Tensor:
        logits, summary = self._summarize(x)
        self.passes.append((summary, self.target.voxels(logits)))
        return logits


def _joined(rows: list[dict[str, Summary]]) -> dict[str, Summary]:
    return {name: [torch.cat(parts) for parts in zip(*(row[name] for row in rows), strict=True)] for name in rows[0]}


def train(features: Features, name: str, mode: str, args: argparse.Namespace, seed: int) -> dict[str, float]:
    """A head alone, by the optimiser of its trainer."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        trainer = features.trainer(name, mode, seed)
    head, losses = trainer.multitask_network.cls_head.train(), []
    weights = class_weights(trainer.preflight.weighting.patches, features.counts["training"])
    weight = as_tensor(weights, torch.device("cpu"))
    order = torch.randperm(len(features.classes)).split(args.batch_size)
    for step, drawn in enumerate(order[: args.iterations]):
        if step % PER_EPOCH == 0:
            trainer.lr_scheduler.step(min(step // PER_EPOCH, trainer.num_epochs - 1))
        logits = head.classify(*(stage[drawn] for stage in features.training[name]))
        loss, counts = class_loss(logits, features.classes[drawn], features.shown[drawn], weight)
        trainer.optimizer.zero_grad()
        (trainer.loss_weight * loss).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), LARGEST_NORM)
        trainer.optimizer.step()
        head.after_step()
        if counts.any():
            losses.append(float(loss.detach()))
    with torch.no_grad():
        windows = head.eval().classify(*features.validation[name]).double().softmax(1).numpy()
    return {**features.score(windows, np.mean(losses[-100:])), "seconds": time.perf_counter() - start}


def discriminant(features: Features, name: str) -> dict[str, float]:
    """Shrinkage LDA on what a head reads; of many features on their principal components."""
    counts = features.shown & (features.classes != UNKNOWN)
    rows = torch.cat([stage.flatten(1) for stage in features.training[name]], 1)[counts].numpy()
    classes = features.classes[counts].numpy()
    reduce = [PCA(min(COMPONENTS, len(rows)), random_state=0)] if rows.shape[1] > WIDE else []
    lda = make_pipeline(StandardScaler(), *reduce, LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    lda.fit(rows, classes)
    windows = torch.cat([stage.flatten(1) for stage in features.validation[name]], 1).numpy()
    loss = log_loss(classes, lda.predict_proba(rows), labels=range(features.num_classes))
    return features.score(lda.predict_proba(windows), loss)


def line(name: str, row: list[dict[str, float]]) -> str:
    """Mean and range over the seeds."""
    texts = []
    for column in COLUMNS:
        values = [found[column] for found in row]
        scope = f" ({min(values):.2f} to {max(values):.2f})" if len(row) > 1 else ""
        texts.append(f"{np.mean(values):.3f}{scope}")
    return f"| {name} | " + " | ".join(texts) + " |"


def table_of_spread(spread: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    lines = [
        "| read by | features | level | spread over features | spread over patches |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in spread.items():
        texts = f"{row['level']:.3f} | {row['between_features']:.3f} | {row['between_patches']:.3f}"
        lines.append(f"| {name} | {row['features']:.0f} | {texts} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
