"""Several trained models of one dataset, as training leaves them, without any training."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation import trained_folds as made
from tests.utils import write_volume

STOCK, GOOD, CHANCE = (
    f"nnUNetTrainer_{name}__nnUNetPlans__3d_fullres" for name in ("CLSHeadSumFT", "CLSHeadLesion", "CLSHeadMA")
)
SIGNALS = {GOOD: 3.0, CHANCE: 0.0}  # of the class, in standard deviations
CASES = [case for fold in range(made.FOLDS) for case in made.cases_of(fold)]
TRUTH = np.array([made.truth_of(case) for case in CASES])


def write_models(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three models: that of ``made``, a better one and one at chance; returns the folder of all."""
    first = made.write_folds(root, monkeypatch)
    for name in SIGNALS:
        shutil.copytree(first, first.with_name(name))
        for case in CASES:
            made.write_class_file(first.with_name(name), int(case[-3]), case, probabilities_of(name, case))
    return first.parent


def probabilities_of(model: str, case: str) -> np.ndarray:
    if model == STOCK:
        return made.probabilities_of(case)
    seen = np.random.default_rng([len(model), int(case[-3:])]).normal(size=3)
    seen[made.truth_of(case)] += SIGNALS[model]
    values = np.exp(2 * seen)
    return values / values.sum()


def probabilities(model: str) -> np.ndarray:
    """``(N, C)`` of all cases."""
    return np.stack([probabilities_of(model, case) for case in CASES])


def validation(model: Path, case: str) -> Path:
    return model / f"fold_{case[-3]}" / "validation"


def voxel_probabilities(model: str, case: str) -> np.ndarray:
    """Of three labels ``(3, Z, Y, X)``: uncertain ones in which the right label is often ahead."""
    values = np.random.default_rng([len(model), int(case[-3:]), 1]).uniform(size=(3, *made.volume(case).shape))
    for label in range(3):
        values[label] += 0.5 * (made.volume(case) == label)
    return (values / values.sum(axis=0)).astype(np.float32)


def write_probabilities(model: Path) -> None:
    """What ``nnUNetv2_train ... --npz`` adds, with segmentations that fit it."""
    for case in CASES:
        folder, values = validation(model, case), voxel_probabilities(model.name, case)
        np.savez_compressed(folder / f"{case}.npz", probabilities=values)
        stuff = {"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0), "direction": tuple(np.eye(3).ravel())}
        (folder / f"{case}.pkl").write_bytes(pickle.dumps({"sitk_stuff": stuff, "spacing": [1.0, 1.0, 1.0]}))
        write_volume(folder / f"{case}.nii.gz", values.argmax(axis=0).astype(np.uint8))


def foreground_dice(segmentations: Mapping[str, np.ndarray]) -> float:
    """Mean over the cases, then over the labels."""
    means = []
    for label in (1, 2):
        masks = [(segmentations[case] == label, made.volume(case) == label) for case in CASES]
        means.append(np.mean([2 * np.sum(p & r) / (p.sum() + r.sum()) for p, r in masks]))
    return float(np.mean(means))
