"""A dataset of toy volumes, planned and preprocessed by nnU-Net itself, with networks that train in seconds.

Volumes are 16 x 24 x 24 voxels of 1 mm in (Z, Y, X): an organ (1) with a lesion (2) whose intensity tells
the class. Patches are 16 x 16 x 16, so every case has four windows.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.utils import write_class_labels, write_volume

DATASET = "Dataset007_Toy"
DATASET_ID = 7
PLANS = "nnUNetPlansSmall"
RESENC_PLANS = "nnUNetPlansToyResEnc"
CASES = [f"toy_{n:03d}" for n in range(9)]
CLASSES = {case: n % 3 for n, case in enumerate(CASES)}
TRAINING, VALIDATION = CASES[:6], CASES[6:]
CLASS_NAMES = ["low", "middle", "high"]
SHAPE = (16, 24, 24)
STAGE1 = "nnUNetTrainer_Stage1"
FINE_TUNING = "nnUNetTrainer_CLSHeadSumFT"
SETTINGS = {
    "NNUNETV2_MT_EPOCHS": "2",
    "NNUNETV2_MT_ITERS_PER_EPOCH": "2",
    "NNUNETV2_MT_VAL_ITERS": "1",
    "NNUNETV2_MT_SEED": "3",
    "nnUNet_n_proc_DA": "0",
    "nnUNet_compile": "false",
}


def toy_volume(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (HU, int16) and labels (uint8) of the n-th case, ``(Z, Y, X)``."""
    rng = np.random.default_rng(n)
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:13, 4:20, 4:20] = 1
    z, y, x = rng.integers((5, 6, 6), (9, 12, 12))
    labels[z : z + 4, y : y + 6, x : x + 6] = 2
    image = np.choose(labels, [-100, 100, 150 + 75 * (n % 3)]) + rng.normal(0, 20, SHAPE)
    return image.astype(np.int16), labels


def write_raw_toys(raw: Path) -> None:
    """nnU-Net's raw layout with ``classification.json``."""
    folder = raw / DATASET
    for n, case in enumerate(CASES):
        image, labels = toy_volume(n)
        write_volume(folder / "imagesTr" / f"{case}_0000.nii.gz", image)
        write_volume(folder / "labelsTr" / f"{case}.nii.gz", labels)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
        "class_names": CLASS_NAMES,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "classification.json").write_text(json.dumps(CLASSES))


def write_toy_inputs(folder: Path, numbers: Sequence[int]) -> Path:
    """Images named ``new_<number>``, none of them in the training data; returns ``folder``."""
    for n in numbers:
        write_volume(folder / f"new_{n:03d}_0000.nii.gz", toy_volume(100 + n)[0])
    return folder


def plan_and_preprocess(preprocessed: Path) -> None:
    """nnU-Net's fingerprint, plans and preprocessing, networks made small; its variables have to be set."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    from nnunet_3dct.training.planners import SmallUNetPlanner

    extract_fingerprint_dataset(DATASET_ID, num_processes=1, show_progress_bar=False)
    plan_experiment_dataset(DATASET_ID, SmallUNetPlanner, gpu_memory_target_in_gb=1)
    folder = preprocessed / DATASET
    plans = json.loads((folder / f"{PLANS}.json").read_text())
    flat, full = plans["configurations"]["2d"], plans["configurations"]["3d_fullres"]
    flat["data_identifier"] = full["data_identifier"]  # voxels are isotropic: one preprocessing serves both
    shrink_network(flat, [4, 8, 16])
    shrink_network(full, [4, 8, 16])
    (folder / f"{PLANS}.json").write_text(json.dumps(plans))
    plans["plans_name"] = RESENC_PLANS
    make_residual(full)
    (folder / f"{RESENC_PLANS}.json").write_text(json.dumps(plans))
    preprocess_dataset(DATASET_ID, PLANS, ("3d_fullres",), num_processes=(1,), show_progress_bar=False)
    splits = [{"train": TRAINING, "val": VALIDATION}]
    (folder / "splits_final.json").write_text(json.dumps(splits))


def shrink_network(configuration: dict[str, Any], features: Sequence[int]) -> None:
    """One convolution a stage, strides of 2, patches of 16 voxels along each axis, batches of 2."""
    dim, stages = len(configuration["patch_size"]), len(features)
    configuration.update(patch_size=[16] * dim, batch_size=2)
    configuration["architecture"]["arch_kwargs"].update(
        n_stages=stages,
        features_per_stage=list(features),
        kernel_sizes=[[3] * dim] * stages,
        strides=[[1] * dim] + [[2] * dim] * (stages - 1),
        n_conv_per_stage=[1] * stages,
        n_conv_per_stage_decoder=[1] * (stages - 1),
    )


def make_residual(configuration: dict[str, Any]) -> None:
    """Turn a ``PlainConvUNet`` into a ``ResidualEncoderUNet`` of the same stages."""
    architecture = configuration["architecture"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    kwargs = architecture["arch_kwargs"]
    kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")


def trained_folder(results: Path, trainer: str, plans: str = PLANS, configuration: str = "3d_fullres") -> Path:
    """nnU-Net's folder of a trained model."""
    return results / DATASET / f"{trainer}__{plans}__{configuration}"


def with_changed_files(preprocessed: Path, folder: Path, **contents: Any) -> Path:
    """A preprocessed dataset of links to another one's files, some JSON files (by stem) written anew."""
    (folder / DATASET).mkdir(parents=True)
    for path in (preprocessed / DATASET).iterdir():
        if path.stem not in contents:
            (folder / DATASET / path.name).symlink_to(path)
    for stem, content in contents.items():
        (folder / DATASET / f"{stem}.json").write_text(json.dumps(content))
    return folder


def use_labels(
    environment: pytest.MonkeyPatch, root: Path, folder: Path, labels: dict[str, Any], **contents: Any
) -> Path:
    """Set nnU-Net's variables to a dataset of other class labels, preprocessed and raw; returns the former's folder."""
    changed = with_changed_files(root / "preprocessed", folder, classification=labels, **contents)
    raw = folder.with_name(f"{folder.name}_raw")
    write_class_labels(raw / DATASET, labels)
    environment.setenv("nnUNet_preprocessed", str(changed))
    environment.setenv("nnUNet_raw", str(raw))
    return changed


def copy_model(source: Path, results: Path) -> Path:
    """Copy a model folder into other results; returns the copy."""
    copy = results / DATASET / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("validation"))
    return copy


def get_trainer(trainer: str, configuration: str = "3d_fullres", plans: str = PLANS, resume: bool = False):
    """nnU-Net's trainer object as ``nnUNetv2_train`` makes it, with the checkpoint loaded for ``--c``."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    made = get_trainer_from_args(DATASET, configuration, 0, trainer, plans, resume, torch.device("cpu"))
    maybe_load_checkpoint(made, resume, False)
    return made


def train(trainer: str, **options: Any) -> None:
    """``nnUNetv2_train Dataset007_Toy 3d_fullres 0 -tr trainer`` in this process, on the CPU."""
    import torch
    from nnunetv2.run.run_training import run_training

    run_training(DATASET, "3d_fullres", 0, trainer, PLANS, device=torch.device("cpu"), **options)


def folders_below(folder: Path) -> list[str]:
    """Everything in ``folder``, as relative paths."""
    return sorted(os.fspath(path.relative_to(folder)) for path in folder.rglob("*")) if folder.is_dir() else []
