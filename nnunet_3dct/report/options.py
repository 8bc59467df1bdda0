"""What a report is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_3dct.errors import EvaluationError

WINDOW = (-160.0, 240.0)  # HU, abdominal soft tissue


@dataclass(frozen=True)
class ReportOptions:
    """Folders and settings of a report; what is None is left out of it.

    Attributes:
        predictions: folder of predicted label volumes.
        labels: folder of reference label volumes.
        images: folder of images, ``<case>_0000<ending>``.
        class_labels: ``classification.json`` or ``.csv``.
        dataset_json: None for the one in ``predictions``.
        class_folder: folder of the class predictions, None for ``predictions``.
        class_names: names of the classes 0, 1, ...
        window: lowest and highest intensity of the pictures, HU for CT.
        max_cases: how many cases get a section with pictures, None for all.
        tolerance: of the surface Dice, in mm.
        chill: accept references without a prediction.
        num_processes: how many cases are compared at the same time.
    """

    predictions: Path
    labels: Path | None = None
    images: Path | None = None
    class_labels: Path | None = None
    dataset_json: Path | None = None
    class_folder: Path | None = None
    class_names: tuple[str, ...] | None = None
    window: tuple[float, float] = WINDOW
    max_cases: int | None = None
    tolerance: float = 2.0
    chill: bool = False
    num_processes: int = 1

    def check(self) -> None:
        """Raise an EvaluationError for settings out of range and for folders that do not exist."""
        low, high = self.window
        if not (np.isfinite(self.window).all() and low < high):
            raise EvaluationError(f"--window: expected two intensities, the lower first, found {low:g} {high:g}.")
        if self.max_cases is not None and self.max_cases < 0:
            raise EvaluationError(f"--cases: expected a number of cases, at least 0, found {self.max_cases}.")
        for flag, folder in (("-p", self.predictions), ("-g", self.labels), ("-i", self.images)):
            if folder is not None and not folder.is_dir():
                raise EvaluationError(f"{flag}: {folder} is no folder. Check the path.")

    def find_dataset_json(self) -> Path:
        """Return the ``dataset.json`` that names the structures.

        Raises:
            EvaluationError: none was given and the prediction folder holds none.
        """
        found = self.dataset_json or self.predictions / "dataset.json"
        if not found.is_file():
            raise EvaluationError(f"{found}: expected the dataset.json of the predictions, found none. Give -djfile.")
        return found
