"""Class score of an epoch on whole volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from nnunet_3dct.formats.class_labels import UNKNOWN

STEP_SIZE = 0.5  # upstream's in its validation


@dataclass(frozen=True)
class ClassScore:
    """Scores over the cases with a known class; NaN when there is none.

    ``macro_f1`` is the mean over the classes that occur in the fold.
    """

    macro_f1: float
    accuracy: float
    log_loss: float
    n_cases: int

    def __str__(self) -> str:
        return (
            f"whole volumes of {self.n_cases} validation cases: cls_val_loss {self.log_loss:.4f}, "
            f"macro-F1 {self.macro_f1:.4f}, accuracy {self.accuracy:.4f}"
        )

    def better_than(self, other: ClassScore | None) -> bool:
        """Higher macro-F1 wins; at equal macro-F1 the lower log loss."""
        if self.n_cases == 0:
            return False
        return other is None or (self.macro_f1, -self.log_loss) > (other.macro_f1, -other.log_loss)


def score_cases(probs: Mapping[str, Sequence[float]], classes: Mapping[str, int]) -> ClassScore:
    """Compare class probabilities with the labels.

    Args:
        probs: case -> class probabilities.
        classes: case -> class, -1 for unknown.
    """
    cases = [case for case in probs if classes.get(case, UNKNOWN) != UNKNOWN]
    if not cases:
        return ClassScore(float("nan"), float("nan"), float("nan"), 0)
    truth = np.array([classes[case] for case in cases])
    table = np.array([probs[case] for case in cases])
    predicted = table.argmax(1)
    return ClassScore(
        float(f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)),
        float(accuracy_score(truth, predicted)),
        float(-np.log(np.clip(table[np.arange(len(cases)), truth], 1e-12, None)).mean()),
        len(cases),
    )
