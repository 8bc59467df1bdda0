"""Class predictions and class labels side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.formats.class_label_files import UNKNOWN
from nnunet_3dct.formats.class_labels import ClassLabels
from nnunet_3dct.formats.class_prediction import ClassPrediction

_REPORT_KEYS = {"accuracy", "macro avg", "weighted avg"}  # of scikit-learn's classification report


@dataclass(frozen=True)
class ClassifiedCases:
    """Predicted cases whose class is known.

    Attributes:
        cases: N identifiers.
        truth, predicted: classes ``(N,)``.
        probabilities: ``(N, C)``; None where a case has none.
        names: of the C classes.
        without_probabilities: cases that have none, if others have.
    """

    cases: list[str]
    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None
    names: list[str]
    without_probabilities: list[str]


def classified_cases(
    predictions: Mapping[str, ClassPrediction],
    labels: ClassLabels,
    class_names: Sequence[str] | None,
    names_source: str = "class_names",
) -> ClassifiedCases:
    """Put predictions and labels side by side, without the cases whose class is unknown.

    Raises:
        EvaluationError: they do not fit each other, see :func:`check_predictions`.
    """
    names = check_predictions(predictions, labels, class_names, names_source)
    cases = [case for case in predictions if labels.by_case[case] != UNKNOWN]
    rows = {case: predictions[case].probabilities for case in cases}
    given = [row for row in rows.values() if row is not None]
    complete = len(given) == len(cases)
    return ClassifiedCases(
        cases,
        np.array([labels.by_case[case] for case in cases]),
        np.array([predictions[case].label for case in cases]),
        np.stack(given) if complete else None,
        names,
        [] if complete or not given else [case for case, row in rows.items() if row is None],
    )


def check_predictions(
    predictions: Mapping[str, ClassPrediction],
    labels: ClassLabels,
    class_names: Sequence[str] | None,
    names_source: str = "class_names",
) -> list[str]:
    """Check that predictions, labels and class names speak of the same cases and classes.

    Args:
        predictions: case -> prediction.
        labels: class of each case.
        class_names: of the classes, None for ``class0``, ``class1``, ...
        names_source: where the names came from, for messages.

    Returns:
        The class names.

    Raises:
        EvaluationError: they do not; the message names the case and both values.
    """
    missing = sorted(set(predictions) - set(labels.by_case))
    if missing:
        some = "none of the" if len(missing) == len(predictions) else f"not all of the {len(predictions)}"
        raise EvaluationError(
            f"{labels.source} holds {some} predicted cases. Predicted without a label: {listing(missing)}; "
            f"the labels file holds {listing(sorted(labels.by_case), 3)}. "
            "Add the labels (-1 for unknown) or take the right file."
        )
    if all(labels.by_case[case] == UNKNOWN for case in predictions):
        raise EvaluationError(
            f"All {len(predictions)} predicted cases have the label -1 (unknown) in {labels.source}; "
            "expected at least one with a class."
        )
    stated = {case: p.num_classes for case, p in predictions.items() if p.num_classes is not None}
    first = next(iter(stated), None)
    for case, number in stated.items():
        if first is not None and number != stated[first]:
            raise EvaluationError(
                f"The predictions differ in their number of classes: {first} has {stated[first]}, {case} has "
                f"{number}. The folder mixes runs of two models; predict into an empty folder."
            )
    num_classes = labels.num_classes if first is None else stated[first]
    assert num_classes is not None
    names = list(class_names or [f"class{k}" for k in range(num_classes)])
    if len(names) != num_classes:
        source = labels.source if first is None else "the predictions"
        raise EvaluationError(
            f"{names_source}: expected {num_classes} names, as many as {source} have classes; "
            f"found {len(names)}: {listing(names)}."
        )
    if len(set(names)) < len(names) or _REPORT_KEYS & set(names):
        raise EvaluationError(
            f"{names_source}: expected distinct names, none of them {sorted(_REPORT_KEYS)}; found {listing(names)}."
        )
    for case, label in labels.by_case.items():
        if label >= num_classes:
            raise EvaluationError(
                f"Case {case}: its label in {labels.source} is {label}, but the predictions know only the "
                f"{num_classes} classes 0 to {num_classes - 1}."
            )
    for case, prediction in predictions.items():
        if not 0 <= prediction.label < num_classes:
            raise EvaluationError(
                f"Case {case}: its predicted class is {prediction.label}, expected 0 to {num_classes - 1} "
                f"({num_classes} classes)."
            )
    return names
