"""The network and the cases of the prediction benchmark, made from the phantom below one work folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from processes import run

DATASET, PLANS, CONFIGURATION = "Dataset001_3DCT", "nnUNetPlans", "3d_fullres"
TRAINER = "nnUNetTrainer_CLSHeadLesion"
CT_SHAPE, CT_NETWORK_SHAPE = (300, 512, 512), (375, 526, 526)

# training without the validation at its end and without the lesion head's last fit to whole volumes; with one patch
# a step nnU-Net's third of patches around foreground would be none
TRAIN = """
import os, sys, torch
from nnunet_3dct.formats.checkpoint import HEAD_STATE, read_checkpoint
from nnunetv2.run.run_training import get_trainer_from_args
dataset, configuration, name, plans, device, *start = sys.argv[1:]
torch.set_num_threads(os.cpu_count() if device == "cpu" else 1)
trainer = get_trainer_from_args(dataset, configuration, 0, name, plans, device=torch.device(device))
trainer.fits_head_to_volumes = False
trainer.oversample_foreground_percent = 1.0
if start:
    checkpoint = read_checkpoint(start[0])
    trainer.initialize()
    trainer.network.load_state_dict(checkpoint["network_weights"], strict=False)
    trainer.network.cls_head.load_state_dict(checkpoint[HEAD_STATE])
trainer.run_training()
"""


def set_folders(work: Path) -> None:
    """Let nnU-Net's and our variables point below ``work``."""
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str((work / name).resolve())
    os.environ.update(nnUNet_def_n_proc="2", GOMP_SPINCOUNT="30000", NNUNET3DCT_CACHE=str(work / "converted"))


def prepare(work: Path, device: str, small_steps: int, full_steps: int) -> Path:
    """Phantom and a network trained on it; takes what an earlier call left.

    Args:
        work: work folder, see :func:`set_folders`.
        device: ``"cpu"`` or ``"cuda"``.
        small_steps: on patches an eighth as large, one a step.
        full_steps: after them on the planned patches, one a step; 0 for none.

    Returns:
        The folder of the model; its file ``trained`` says how many steps it has seen.
    """
    model = work / "results" / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    done = model / "trained"
    if done.is_file():
        return model
    run(["nnUNet3DCT_phantom", "-o", work / "raw" / DATASET, "--cases", "24", "--val", "36", "-np", "2"])
    run(["nnUNetv2_plan_and_preprocess", "-d", "1", "-c", CONFIGURATION, "-np", "2", "-npfp", "2"])
    plans_file = work / "preprocessed" / DATASET / f"{PLANS}.json"
    planned = plans_file.read_text()
    small, small_model = json.loads(planned), work / "small.pth"
    patch = small["configurations"][CONFIGURATION]["patch_size"]
    _train(plans_file, small, [size // 2 for size in patch], device, small_steps, 0.02, [])
    if full_steps:
        shutil.copyfile(model / "fold_0" / "checkpoint_final.pth", small_model)
        shutil.rmtree(model)
        _train(plans_file, json.loads(planned), patch, device, full_steps, 0.01, [small_model])
    plans_file.write_text(planned)
    (model / "plans.json").write_text(planned)
    done.write_text(json.dumps({"an eighth of the patch": small_steps, "whole patch": full_steps}))
    return model


def _train(
    file: Path, plans: dict[str, Any], patch: list[int], device: str, steps: int, rate: float, start: list[Path]
) -> None:
    plans["configurations"][CONFIGURATION].update(patch_size=patch, batch_size=1)
    file.write_text(json.dumps(plans))
    epochs = max(1, steps // 50)
    variables = {
        "NNUNETV2_MT_EPOCHS": str(epochs),
        "NNUNETV2_MT_ITERS_PER_EPOCH": str(steps // epochs),
        "NNUNETV2_MT_VAL_ITERS": "1",
        "NNUNETV2_MT_CLS_VAL_EVERY": str(epochs),
        "NNUNETV2_MT_LR": str(rate),
        "NNUNETV2_MT_INTENSITY_AUG": "off",
        "NNUNETV2_MT_TARGET_LABELS": "lesion",
        "NNUNETV2_MT_SEED": "0",
        "nnUNet_n_proc_DA": str(max(1, (os.cpu_count() or 1) // 2)),
    }
    command = [sys.executable, "-c", TRAIN, DATASET, CONFIGURATION, TRAINER, PLANS, device, *map(str, start)]
    subprocess.run(command, check=True, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)


def roi_cases(work: Path, number: int) -> tuple[Path, Path]:
    """Folders of ``number`` crops around the pancreas and of their labels."""
    source, images = work / "raw" / DATASET / "imagesVal", work / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    files = sorted(source.iterdir())
    if number > len(files):
        sys.exit(f"error: --cases: expected at most {len(files)}, found {number}")
    for file in files[:number]:
        (images / file.name).symlink_to(file.resolve())
    return images, work / "raw" / DATASET / "labelsVal"


def whole_ct(work: Path) -> tuple[Path, Path]:
    """Folders of one image and its labels: a body of soft tissue in air with a phantom crop in its middle."""
    raw, images, truth = work / "raw" / DATASET, work / "images_ct", work / "labels_ct"
    plans = json.loads((work / "preprocessed" / DATASET / f"{PLANS}.json").read_text())
    planned = plans["configurations"][CONFIGURATION]["spacing"]
    spacing = [float(s * n / o) for s, n, o in zip(planned, CT_NETWORK_SHAPE, CT_SHAPE, strict=True)]
    rng = np.random.default_rng(0)
    volume = rng.normal(-1000, 10, CT_SHAPE).astype(np.float32)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in CT_SHAPE[1:]), indexing="ij")
    volume[:, (x / 0.75) ** 2 + (y / 0.5) ** 2 < 1] += 1030
    labels = np.zeros(CT_SHAPE, np.uint8)
    crop = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(sorted((raw / "imagesVal").iterdir())[0])))
    crop_labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(sorted((raw / "labelsVal").iterdir())[0])))
    inside = tuple(slice((o - c) // 2, (o - c) // 2 + c) for o, c in zip(CT_SHAPE, crop.shape, strict=True))
    volume[inside], labels[inside] = crop, crop_labels
    for folder, array, name in ((images, volume.astype(np.int16), "ct_0000.nii.gz"), (truth, labels, "ct.nii.gz")):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing(spacing[::-1])
        SimpleITK.WriteImage(image, str(folder / name))
    return images, truth
