"""What a report is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_3dct.errors import EvaluationError, SettingsError
from nnunet_3dct.paths import DATASET_FILE

WINDOW = (-160.0, 240.0)  # HU, abdominal soft tissue


@dataclass(frozen=True)
class ReportOptions:
    """Folders and settings of a report; what is None is left out of it.

    Attributes:
        predictions: folder of predicted label volumes.
        labels: folder of reference label volumes.
        images: folder of images, ``<case>_0000<ending>``.
        classes: ``classification.json`` or ``.csv``.
        dataset_json: None for the one in ``predictions``.
        class_folder: folder of the class predictions, None for ``predictions``.
        class_names: names of the classes 0, 1, ...
        window: lowest and highest intensity of the pictures, HU for CT.
        max_cases: how many cases get a section with pictures, None for all.
        tolerance: of the surface Dice, in mm.
        chill: accept references without a prediction.
        num_processes: how many cases are read and compared at the same time (threads).
    """

    predictions: Path
    labels: Path | None = None
    images: Path | None = None
    classes: Path | None = None
    dataset_json: Path | None = None
    class_folder: Path | None = None
    class_names: tuple[str, ...] | None = None
    window: tuple[float, float] = WINDOW
    max_cases: int | None = None
    tolerance: float = 2.0
    chill: bool = False
    num_processes: int = 1

    def check(self) -> None:
        """Make sure that the settings can be used.

        Raises:
            SettingsError: one of them is out of range.
            EvaluationError: a folder does not exist.
        """
        low, high = self.window
        if not (np.isfinite(self.window).all() and low < high):
            raise SettingsError(f"window: expected two intensities, the lower first, found {low:g} {high:g}.")
        if self.max_cases is not None and self.max_cases < 0:
            raise SettingsError(f"max_cases: expected a number of cases, at least 0, found {self.max_cases}.")
        if self.num_processes < 1:
            raise SettingsError(f"num_processes: expected at least 1, found {self.num_processes}.")
        folders = (("predictions", self.predictions), ("labels", self.labels), ("images", self.images))
        for name, folder in (*folders, ("class_folder", self.class_folder)):
            if folder is not None and not folder.is_dir():
                raise EvaluationError(f"{name}: {folder} is no folder. Check the path.")

    def find_dataset_json(self) -> Path:
        """Return the ``dataset.json`` that names the structures.

        Raises:
            EvaluationError: none was given and the prediction folder holds none.
        """
        path = self.dataset_json or self.predictions / DATASET_FILE
        if not path.is_file():
            raise EvaluationError(
                f"{path}: expected the {DATASET_FILE} of the predictions, found none. Give the dataset's own."
            )
        return path
