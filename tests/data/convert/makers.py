"""Small sources of every kind that ``nnUNet3DCT_convert`` reads; docs/data.md shows what it makes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openpyxl
import pydicom

from tests.data.test_repairs import AFFINE, nifti
from tests.dicom.makers import Patient, localizer, phantom, phantom_labels, save_one, write_series
from tests.dicom.test_references import write_seg
from tests.utils import ct_array, label_array, truncate

SCALED = np.float32(1.0000153)


def pair(image: Path, mask: Path | None, seed: int, labels: np.ndarray | None = None) -> None:
    """Write an image and its mask."""
    image.parent.mkdir(parents=True, exist_ok=True)
    nifti(image, ct_array(seed=seed))
    if mask is not None:
        mask.parent.mkdir(parents=True, exist_ok=True)
        nifti(mask, label_array() if labels is None else labels)


def challenge(root: Path, *, train: int = 2, validation: int = 1, test: int = 2) -> Path:
    """The challenge layout, three classes; masks hold 1.0000153 in place of 1."""
    seed = 0
    for part, number in (("train", train), ("validation", validation)):
        for subtype in range(3):
            for n in range(number):
                seed += 1
                name = f"quiz_{subtype}_{seed:03d}"
                folder = root / part / f"subtype{subtype}"
                pair(folder / f"{name}_0000.nii.gz", folder / f"{name}.nii.gz", seed, label_array() * SCALED)
    for n in range(test):
        pair(root / "test" / f"quiz_{n + 30:03d}_0000.nii.gz", None, 100 + n)
    return root


def hospital(root: Path, rows: Sequence[Sequence[object]] | None = None, *, cases: int = 4) -> Path:
    """Folders of images and masks whose names differ in an ending, and an Excel sheet with names of classes."""
    for n in range(1, cases + 1):
        shifted = AFFINE.copy()
        shifted[0, 3] += 0.004
        pair(root / "images" / f"scan{n}_ct.nii.gz", None, n)
        (root / "masks").mkdir(exist_ok=True)
        nifti(root / "masks" / f"scan{n}_seg.nii.gz", label_array().astype(np.float32), shifted)
    if rows is None:
        rows = [("scan1", "Cystic", "A"), ("scan2", "solid ", "A"), ("scan3", "cystic", "B"), ("scan4", None, "C")]
    excel(root / "classes.xlsx", [("Case", "Diagnosis", "Patient"), *rows])
    return root


def excel(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    """A workbook of one sheet."""
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(list(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def dicom(root: Path, *, patients: int = 3) -> Path:
    """An export: a folder of each patient's name with a CT and its DICOM-SEG, and a localizer; a table of numbers."""
    lines = ["PatientID;Diagnosis"]
    for n in range(patients):
        patient = Patient(name=f"Nobody{n}^Erika", number=f"KH-4711-{n}")
        folder = root / f"NOBODY{n}_ERIKA"
        files = write_series(folder / "CT", phantom(), patient=patient, tilt=8 if n == 1 else 0)
        write_seg(folder / "seg.dcm", files, phantom_labels())
        save_one(localizer(pydicom.dcmread(files[0])), folder / "CT" / "LOC.dcm")
        lines.append(f"{patient.number};{('cystic', 'solid')[n % 2]}")
    (root / "classes.csv").write_text("\n".join(lines) + "\n")
    return root


def decathlon(root: Path, *, cases: int = 3, channels: int = 2) -> Path:
    """A task of the Medical Segmentation Decathlon with volumes of four axes."""
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    names = [f"thing_{n:03d}" for n in range(cases)]
    for n, name in enumerate([*names, "thing_900"]):
        volumes = np.stack([ct_array(seed=10 * n + channel) for channel in range(channels)])
        part = "Tr" if name in names else "Ts"
        nifti(root / f"images{part}" / f"{name}.nii.gz", volumes if channels > 1 else volumes[0])
        if part == "Tr":
            nifti(root / "labelsTr" / f"{name}.nii.gz", label_array())
    content = {
        "name": "Thing",
        "modality": {str(n): name for n, name in enumerate(("T2", "ADC")[:channels])},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": cases,
        "numTest": 1,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": ["./imagesTs/thing_900.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    (root / "classes.tsv").write_bytes(
        ("\ufeffcase\tclass\r\n" + "".join(f"{name}\t{n % 2}.0 \r\n" for n, name in enumerate(names))).encode()
    )
    return root


def damaged(root: Path) -> Path:
    """The challenge layout with files as transfers, viewers and archives leave them."""
    challenge(root)
    truncate(root / "train/subtype0/quiz_0_001_0000.nii.gz", 0.6)
    return root


def tree(root: Path) -> list[str]:
    """Files below a folder, sorted."""
    return sorted(
        Path(folder, name).relative_to(root).as_posix() for folder, _, names in os.walk(root) for name in names
    )
