"""What a folder says about the class of a case, whichever of its files it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.formats.class_reasons import Reason

SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ClassPrediction:
    """Class prediction of one case, read from a folder; None or empty where the file does not state it.

    Attributes:
        label: predicted class, 0-based.
        probabilities: of each class ``(C,)``.
        num_classes: C.
        class_names: of the classes.
        review: whether the predictor asks for a second look.
        evidence: name of the file with the map of the evidence.
        target_voxels: voxels of the labels that carry the class.
        produced_by: settings of the prediction.
        without_basis: why the predictor says that the class rests on nothing, such as a constant image.
        unusual: in which way the case is unlike the training cases.
        reasons: which features spoke for and against the class.
    """

    label: int
    probabilities: np.ndarray | None
    num_classes: int | None
    class_names: tuple[str, ...] | None = None
    review: bool | None = None
    evidence: str | None = None
    target_voxels: int | None = None
    produced_by: Mapping[str, Any] = field(default_factory=dict)
    without_basis: str | None = None
    unusual: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @property
    def head_weights(self) -> Mapping[str, str]:
        """Fold -> fingerprint of the head that predicted the case."""
        stated = self.produced_by.get("head_weights")
        return stated if isinstance(stated, dict) else {}


def class_values(values: object, where: str) -> np.ndarray:
    """One finite number for each class, ``(C,)``, from a file.

    Args:
        values: as read.
        where: file and place, for the message.

    Raises:
        EvaluationError: they are something else.
    """
    try:
        vector = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        vector = np.empty(0)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise EvaluationError(f"{where}: expected one finite number for each class, found {values}.")
    return vector


def check_probabilities(probabilities: np.ndarray, where: str) -> None:
    """Raise an EvaluationError, which says where, unless probabilities ``(C,)`` are non-negative with the sum 1."""
    total = float(probabilities.sum())
    if abs(total - 1) > SUM_TOLERANCE or probabilities.min() < 0:
        raise EvaluationError(
            f"{where}: expected probabilities >= 0 with the sum 1 (tolerance {SUM_TOLERANCE}), "
            f"found {probabilities.tolist()} with the sum {total:.6g}. Predict the case again."
        )
