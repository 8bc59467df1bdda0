"""Predicted and true class of every case, and the metrics of both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.classification import check_predictions, evaluate_predictions
from nnunet_3dct.formats.class_files import (
    CLASS_SUFFIX,
    PROBABILITIES_CSV,
    RESULTS_CSV,
    ClassPrediction,
    read_predictions,
)
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels, load_class_labels
from nnunet_3dct.report.options import ReportOptions


@dataclass(frozen=True)
class CaseClass:
    """Class of one case.

    Attributes:
        predicted: predicted class, 0-based.
        probabilities: of each class ``(C,)``, None if the prediction holds none.
        truth: true class, None if it is unknown.
        review: whether the predictor asks for a second look, its confidence being low.
    """

    predicted: int
    probabilities: tuple[float, ...] | None
    truth: int | None
    review: bool

    @property
    def correct(self) -> bool | None:
        """Whether the class is right; None where the true class is unknown."""
        return None if self.truth is None else self.predicted == self.truth

    @property
    def confidence(self) -> float | None:
        """Probability of the predicted class."""
        return None if self.probabilities is None else self.probabilities[self.predicted]


@dataclass(frozen=True)
class ClassResults:
    """Classes of all cases; ``metrics``: what ``evaluate_classification`` returns, None without class labels."""

    names: list[str]
    by_case: dict[str, CaseClass]
    metrics: dict[str, Any] | None


def read_class_results(options: ReportOptions, cases: Sequence[str]) -> ClassResults | None:
    """Read and evaluate the class predictions; None if there are none and no class labels were given.

    Args:
        options: of the report.
        cases: the cases with a predicted segmentation.

    Raises:
        EvaluationError: predictions, labels, class names and segmentations do not speak of the same cases and
            classes.
        ClassLabelsError: the labels file cannot be used.
    """
    folder = options.class_folder or options.predictions
    wanted = options.class_folder or options.class_labels or options.class_names
    if not wanted and not _has_class_predictions(folder):
        return None
    predictions, _ = read_predictions(folder)
    _check_same_cases(set(predictions), set(cases), folder)
    given = options.class_names or _stored_names(folder, predictions)
    if options.class_labels:
        labels = load_class_labels(options.class_labels)
        names = check_predictions(predictions, labels, given)
        metrics = evaluate_predictions(predictions, labels, names, resamples=2000, seed=0)
    else:
        labels, metrics = ClassLabels({}, folder), None
        # the checks compare with labels; without any, the predictions stand in for them
        names = check_predictions(predictions, ClassLabels(_predicted(predictions), folder), given)
    reviewed = {case for case in predictions if _content(folder, case).get("review") is True}
    by_case = {
        case: CaseClass(
            found.label,
            None if found.probabilities is None else tuple(found.probabilities.tolist()),
            None if labels.by_case.get(case, UNKNOWN) == UNKNOWN else labels.by_case[case],
            case in reviewed,
        )
        for case, found in predictions.items()
    }
    return ClassResults(names, by_case, metrics)


def _has_class_predictions(folder: Path) -> bool:
    tables = (folder / PROBABILITIES_CSV, folder / RESULTS_CSV)
    return any(folder.glob(f"*{CLASS_SUFFIX}")) or any(table.is_file() for table in tables)


def _check_same_cases(classified: set[str], segmented: set[str], folder: Path) -> None:
    for found, lacking, what in (
        (segmented - classified, "class", "a segmentation"),
        (classified - segmented, "segmentation", "a class"),
    ):
        if found:
            raise EvaluationError(
                f"{folder}: expected segmentation and class of the same cases; {len(found)} cases have {what} but no "
                f"{lacking}: {listing(sorted(found))}. Predict them again, or move their files away."
            )


def _stored_names(folder: Path, predictions: dict[str, ClassPrediction]) -> list[str] | None:
    """Names that the model knows its classes by, if all cases agree on them."""
    found = {json.dumps(_content(folder, case).get("class_names")) for case in predictions}
    names = json.loads(found.pop()) if len(found) == 1 else None
    return [str(name) for name in names] if isinstance(names, list) else None


def _predicted(predictions: dict[str, ClassPrediction]) -> dict[str, int]:
    return {case: found.label for case, found in predictions.items()}


def _content(folder: Path, case: str) -> dict[str, Any]:
    """Content of a case's JSON, which ``read_predictions`` has checked; empty if the classes come from a table."""
    path = folder / f"{case}{CLASS_SUFFIX}"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
