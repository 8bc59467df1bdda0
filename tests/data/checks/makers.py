"""A dataset that looks like CT of abdomens, small, in which a test plants one fault."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from scipy import ndimage

from tests.utils import write_volume

SHAPE = (14, 28, 30)
SPACING = (0.8, 0.8, 2.0)  # x, y, z


def ct(seed: int, shape: Sequence[int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Image in HU, int16, and labels 0, 1 (organ), 2 (lesion) of one abdomen."""
    rng = np.random.default_rng(seed)
    scales = [ndimage.gaussian_filter(rng.normal(size=shape), sigma) for sigma in ((1, 2, 2), (2, 5, 5))]
    tissue = 20 + sum(60 * scale / scale.std() for scale in scales)
    at = np.indices(shape) - np.array([n / 2 + rng.uniform(-1, 1) for n in shape]).reshape(3, 1, 1, 1)
    height, width = rng.uniform(0.34, 0.49, size=2) * shape[1:]
    body = (at[1] / height) ** 2 + (at[2] / width) ** 2 < 1
    image = np.where(body, tissue, -1000) + rng.normal(scale=8, size=shape)
    radius = np.sqrt((2.5 * at[0]) ** 2 + at[1] ** 2 + (at[2] - 3) ** 2)
    labels = (radius < 8).astype(np.uint8) + (radius < 3.5)
    image[labels == 1] += 40
    image[labels == 2] -= 30
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16), labels


def write_ct_dataset(
    folder: Path, training: int = 10, validation: int = 3, test: int = 0, shape: Sequence[int] = SHAPE
) -> Path:
    """A sound dataset: ``case_000`` and so on with the classes 0, 1, 0, ..., then ``val_...`` and ``test_...``."""
    classes: dict[str, int] = {}
    parts = [("case", "Tr", training), ("val", "Val", validation), ("test", "Ts", test)]
    for kind, (name, part, number) in enumerate(parts):
        for n in range(number):
            image, labels = ct(1000 * kind + n, shape)
            write_volume(folder / f"images{part}" / f"{name}_{n:03d}_0000.nii.gz", image, SPACING)
            write_volume(folder / f"labels{part}" / f"{name}_{n:03d}.nii.gz", labels, SPACING)
            classes[f"{name}_{n:03d}"] = n % 2
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": training,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "classification.json").write_text(json.dumps(classes))
    return folder


def files_of(folder: Path, case: str) -> tuple[Path, Path]:
    """Image and label of a case."""
    part = {"case": "Tr", "val": "Val", "test": "Ts"}[case.split("_")[0]]
    return folder / f"images{part}" / f"{case}_0000.nii.gz", folder / f"labels{part}" / f"{case}.nii.gz"


def change(path: Path, edit) -> None:
    """Replace the voxels of a volume by what ``edit`` makes of them, on the same grid."""
    old = SimpleITK.ReadImage(str(path))
    new = SimpleITK.GetImageFromArray(edit(SimpleITK.GetArrayFromImage(old)))
    new.CopyInformation(old)
    SimpleITK.WriteImage(new, str(path), True)


def copy_case(folder: Path, source: str, target: str, turn=lambda image: image) -> None:
    """Put a case into the dataset once more under another name, both files through ``turn``."""
    for old, new in zip(files_of(folder, source), files_of(folder, target), strict=True):
        SimpleITK.WriteImage(turn(SimpleITK.ReadImage(str(old))), str(new), True)


def write_plans(folder: Path, configurations: Mapping[str, object], transpose: Sequence[int] = (0, 1, 2)) -> Path:
    """Write ``nnUNetPlans.json``, as far as the check reads it, into a preprocessed dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"plans_name": "nnUNetPlans", "transpose_forward": list(transpose), "configurations": configurations}
    (folder / "nnUNetPlans.json").write_text(json.dumps(content))
    return folder / "nnUNetPlans.json"
