"""Cases of a finished demo: image, reference, prediction and class."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_3dct.demo.workflow import DATASET
from nnunet_3dct.errors import NNUNet3DCTError

LESION = 2


@dataclass(frozen=True)
class DrawnCase:
    """One held-out case.

    Attributes:
        name: of the case.
        image, reference, prediction: ``(Z, Y, X)``; HU, labels, labels.
        spacing: ``(z, y, x)`` in mm.
        truth: true class.
        probabilities: of each class.
        lesion_dice: nnU-Net's.
    """

    name: str
    image: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, ...]
    truth: int
    probabilities: tuple[float, ...]
    lesion_dice: float

    @property
    def predicted(self) -> int:
        """The class of the highest probability."""
        return int(np.argmax(self.probabilities))


def median_cases(demo: Path) -> list[str]:
    """Of each class the case of median lesion Dice, in the order of the classes.

    The lower one of two in the middle; cases without a Dice count as 0.

    Raises:
        NNUNet3DCTError: the demo is not finished.
    """
    dice, truth = _lesion_dice(demo), _truth(demo)
    by_class: dict[int, list[str]] = {}
    for case in sorted(dice, key=lambda case: (dice[case], case)):
        by_class.setdefault(truth[case], []).append(case)
    return [cases[(len(cases) - 1) // 2] for _, cases in sorted(by_class.items())]


def rightly_classified(demo: Path) -> tuple[int, int]:
    """How many held-out cases have their true class predicted, and how many there are."""
    truth, right = _truth(demo), 0
    files = sorted((demo / "predictions").glob("*_classification.json"))
    for path in files:
        right += json.loads(path.read_text())["pred"] == truth[path.name.removesuffix("_classification.json")]
    return right, len(files)


def read_case(demo: Path, name: str) -> DrawnCase:
    """Read a held-out case and its prediction.

    Raises:
        NNUNet3DCTError: no such case, or the demo is not finished.
    """
    dice = _lesion_dice(demo)
    if name not in dice:
        raise NNUNet3DCTError(f"--cases: expected held-out cases of {demo} ({', '.join(sorted(dice))}), found {name!r}")
    raw, predictions = demo / "nnUNet_raw" / DATASET, demo / "predictions"
    image = SimpleITK.ReadImage(str(raw / "imagesVal" / f"{name}_0000.nii.gz"))
    result = json.loads((predictions / f"{name}_classification.json").read_text())
    return DrawnCase(
        name=name,
        image=SimpleITK.GetArrayFromImage(image),
        reference=_array(raw / "labelsVal" / f"{name}.nii.gz"),
        prediction=_array(predictions / f"{name}.nii.gz"),
        spacing=image.GetSpacing()[::-1],
        truth=_truth(demo)[name],
        probabilities=tuple(result["probs"]),
        lesion_dice=dice[name],
    )


def _lesion_dice(demo: Path) -> dict[str, float]:
    summary = demo / "predictions" / "summary.json"
    if not summary.is_file():
        raise NNUNet3DCTError(
            f"Demo folder {demo}: expected predictions/summary.json, found none. Run make demo first."
        )
    found = {}
    for case in json.loads(summary.read_text())["metric_per_case"]:
        dice = float(case["metrics"][str(LESION)]["Dice"])
        found[Path(case["prediction_file"]).name.removesuffix(".nii.gz")] = 0.0 if math.isnan(dice) else dice
    return found


def _truth(demo: Path) -> dict[str, int]:
    labels = json.loads((demo / "nnUNet_raw" / DATASET / "classification.json").read_text())
    return {case: int(label) for case, label in labels.items()}


def _array(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
