"""All that is known of one case, and which cases get pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_3dct.formats.measurement_files import MeasurementFile
from nnunet_3dct.formats.metrics_segmentation import WHOLE_ORGAN, StructureMetrics
from nnunet_3dct.report.class_results import ClassOfCase
from nnunet_3dct.report.pictures import CasePictures
from nnunet_3dct.report.predicted_case import PredictedCase


@dataclass(frozen=True)
class CaseResult:
    """One case.

    Attributes:
        files: where it lies.
        number: position in the report, from 1.
        volumes: predicted volume of each structure in ml.
        metrics: by structure, those of ``evaluate_segmentation``; None without references.
        classified: its class, None without class predictions.
        drawn: its pictures, None if it has no section of its own.
        measured: what the predictor measured of its mask, None where it did not or the mask is another one now.
    """

    files: PredictedCase
    number: int
    volumes: Mapping[str, float]
    metrics: Mapping[str, StructureMetrics] | None
    classified: ClassOfCase | None
    drawn: CasePictures | None = None
    measured: MeasurementFile | None = None

    @property
    def name(self) -> str:
        """Identifier: the file name without ending."""
        return self.files.case

    @property
    def anchor(self) -> str:
        """Identifier of its section; names of cases may hold what no identifier may."""
        return f"case-{self.number}"

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice of the structures of dataset.json that have one."""
        dice = [m["Dice"] for name, m in (self.metrics or {}).items() if name != WHOLE_ORGAN]
        values = [value for value in dice if value is not None]
        return float(np.mean(values)) if values else None

    @property
    def confidence(self) -> float:
        """Probability of the predicted class, 0 where there is none."""
        return (self.classified and self.classified.confidence) or 0.0


def by_dice(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """Cases that have a mean Dice, the lowest first."""
    return sorted((case for case in cases if case.mean_dice is not None), key=lambda case: case.mean_dice or 0)


def choose_pages(cases: Sequence[CaseResult], limit: int | None) -> list[CaseResult]:
    """Cases with a section of their own: all, or as many as were asked for, those with the lowest Dice first.

    Without references the least certain classes come first, without these the names.
    """
    if limit is None or limit >= len(cases):
        return list(cases)
    chosen = by_dice(cases) or sorted(cases, key=lambda case: case.confidence)
    numbers = {case.number for case in chosen}
    rest = [case for case in cases if case.number not in numbers]
    return sorted([*chosen, *rest][:limit], key=lambda case: case.number)
