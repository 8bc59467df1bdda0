"""Tiny predictions, references, images, classes and evidence as files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from nnunet_3dct.report.cohort import collect
from nnunet_3dct.report.options import ReportOptions
from nnunet_3dct.report.page import render
from tests.utils import write_volume

SHAPE = (14, 22, 26)
SPACING = (0.8, 0.9, 2.5)  # x, y, z
LABELS = {"background": 0, "pancreas": 1, "lesion": 2}
NAMES = ("serous", "mucinous", "solid")


def labels(shift: int = 0) -> np.ndarray:
    """An organ with a lesion, moved along x."""
    volume = np.zeros(SHAPE, np.uint8)
    volume[3:11, 6:16, 6 + shift : 18 + shift] = 1
    volume[5:8, 8:12, 8 + shift : 12 + shift] = 2
    return volume


def image(seed: int) -> np.ndarray:
    """Noise, brighter towards the patient's left, the back and the head."""
    noise = np.random.default_rng(seed).normal(scale=20, size=SHAPE)
    return (noise + np.indices(SHAPE).sum(axis=0) * 6 - 160).astype(np.int16)


@dataclass
class Inputs:
    """A folder with everything that a report can be made from."""

    root: Path
    cases: tuple[str, ...] = ("case_0", "case_1", "case_2", "case_3", "case_4", "case_5")
    truth: dict[str, int] = field(default_factory=dict)

    def write(self) -> Inputs:
        for n, case in enumerate(self.cases):
            self.volume("labels", case, labels())
            self.volume("predictions", case, labels(shift=n % 3))
            self.volume("images", f"{case}_0000", image(n))
            self.truth[case] = n % 3
            probabilities = np.random.default_rng(n).dirichlet(np.ones(3))
            self.class_json(case, probs=probabilities.tolist(), pred=int(probabilities.argmax()), num_classes=3)
        self.json(
            "predictions/dataset.json", {"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
        )
        self.json("classification.json", self.truth)
        return self

    def volume(self, folder: str, name: str, array: np.ndarray, **geometry: Any) -> Path:
        return write_volume(self.root / folder / f"{name}.nii.gz", array, **{"spacing": SPACING, **geometry})

    def flip(self, folder: str, name: str) -> None:
        """Store the volume mirrored along x and y, with a direction that says so: the same place in the patient."""
        path = self.root / folder / f"{name}.nii.gz"
        SimpleITK.WriteImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "RAS"), str(path))

    def class_json(self, case: str, **content: object) -> None:
        self.json(f"predictions/{case}_classification.json", content)

    def json(self, name: str, content: object) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    def options(self, **changes: Any) -> ReportOptions:
        """All inputs; a value of None leaves one out."""
        given = {
            "predictions": self.root / "predictions",
            "labels": self.root / "labels",
            "images": self.root / "images",
            "classes": self.root / "classification.json",
            "class_names": NAMES,
        }
        return ReportOptions(**{**given, **changes})

    def html(self, **changes: Any) -> str:
        return render(collect(self.options(**changes)))

    def arguments(self, output: Path) -> list[str]:
        """Arguments of the command."""
        folders = ["-p", "predictions", "-g", "labels", "-i", "images", "-c", "classification.json"]
        paths = [value if value.startswith("-") else str(self.root / value) for value in folders]
        return [*paths, "--class-names", *NAMES, "-o", str(output), "-np", "1"]
