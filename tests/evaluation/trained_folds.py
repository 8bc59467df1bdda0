"""A model folder with the validation predictions of several folds, as training leaves it, without any training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct.formats.atomic import write_json
from tests.utils import write_volume

DATASET, MODEL = "Dataset042_Folds", "nnUNetTrainer_CLSHeadSumFT__nnUNetPlans__3d_fullres"
FOLDS, PER_FOLD = 3, 20
LABELS = {"background": 0, "organ": 1, "lesion": 2}
NAMES = ["low", "middle", "high"]
SIGNAL = 1.5
SHARPNESS = 3.0  # logits are this many times too large


def cases_of(fold: int) -> list[str]:
    return [f"case_{fold}{n:02d}" for n in range(PER_FOLD)]


def truth_of(case: str) -> int:
    return int(case[-2:]) % 3


def probabilities_of(case: str) -> np.ndarray:
    """Overconfident: the true probabilities of classes seen through noise, their logits times ``SHARPNESS``."""
    seen = np.random.default_rng(int(case[-3:])).normal(size=3)
    seen[truth_of(case)] += SIGNAL
    values = np.exp(SHARPNESS * SIGNAL * seen)
    return values / values.sum()


def volume(case: str) -> np.ndarray:
    labels = np.zeros((6, 12, 12), np.uint8)
    labels[1:5, 2:10, 2:10] = 1
    labels[2:4, 4:7, 4 + truth_of(case) : 7 + truth_of(case)] = 2
    return labels


def write_folds(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write everything below ``root``, set nnU-Net's variables; returns the folder of the model."""
    for name in ("raw", "preprocessed", "results"):
        (root / name / DATASET).mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(root / name))
    base, model = root / "preprocessed" / DATASET, root / "results" / DATASET / MODEL
    everything = [case for fold in range(FOLDS) for case in cases_of(fold)]
    splits = [
        {"train": [c for c in everything if c not in cases_of(fold)], "val": cases_of(fold)} for fold in range(FOLDS)
    ]
    (base / "splits_final.json").write_text(json.dumps(splits))
    (base / "classification.json").write_text(json.dumps({case: truth_of(case) for case in everything}))
    for fold in range(FOLDS):
        for n, case in enumerate(cases_of(fold)):
            write_volume(base / "gt_segmentations" / f"{case}.nii.gz", volume(case))
            predicted = np.roll(volume(case), n % 3, axis=2)
            write_volume(model / f"fold_{fold}" / "validation" / f"{case}.nii.gz", predicted)
            write_class_file(model, fold, case, probabilities_of(case))
    (model / "dataset.json").write_text(json.dumps({"labels": LABELS, "file_ending": ".nii.gz", "class_names": NAMES}))
    (model / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    return model


def write_class_file(model: Path, fold: int, case: str, probabilities: np.ndarray, **produced_by: object) -> None:
    content = {
        "logits": np.log(probabilities),
        "probs": probabilities,
        "pred": int(probabilities.argmax()),
        "num_classes": 3,
        "produced_by": {"head_weights": {str(fold): f"weights-of-{fold}"}, **produced_by},
    }
    write_json(content, model / f"fold_{fold}" / "validation" / f"{case}_classification.json")
