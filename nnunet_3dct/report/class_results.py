"""Predicted and true class of every case, and the metrics of both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.classification import evaluate_predictions
from nnunet_3dct.evaluation.classified_cases import check_predictions
from nnunet_3dct.evaluation.provenance import cases_without_basis, mixed_runs, unusual_cases
from nnunet_3dct.formats.class_label_files import UNKNOWN
from nnunet_3dct.formats.class_labels import ClassLabels, load_class_labels
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.class_reasons import Reason
from nnunet_3dct.formats.metrics_class import ClassificationMetrics
from nnunet_3dct.formats.prediction_folders import has_class_predictions, read_predictions
from nnunet_3dct.report.options import ReportOptions


@dataclass(frozen=True)
class ClassOfCase:
    """Class of one case.

    Attributes:
        predicted: predicted class, 0-based.
        probabilities: of each class ``(C,)``, None if the prediction holds none.
        truth: true class, None if it is unknown.
        review: whether the predictor asks for a second look, its confidence being low.
        without_basis: why the class rests on nothing; None if it does not.
        unusual: in which way the case is unlike the training cases.
        reasons: which features spoke for and against the class.
    """

    predicted: int
    probabilities: tuple[float, ...] | None
    truth: int | None
    review: bool
    without_basis: str | None = None
    unusual: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """What is unusual, but for what :attr:`without_basis` says already."""
        return [text for text in self.unusual if text != self.without_basis]

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
    """Classes of all cases.

    Attributes:
        names: of the classes.
        by_case: case -> class.
        metrics: those of ``evaluate_classification``, None without class labels.
        doubts: what makes the class predictions as a whole doubtful, such as files of two models in one folder.
    """

    names: list[str]
    by_case: dict[str, ClassOfCase]
    metrics: ClassificationMetrics | None
    doubts: list[str]


def read_class_results(options: ReportOptions, cases: Collection[str]) -> ClassResults | None:
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
    wanted = options.class_folder or options.classes or options.class_names
    if not wanted and not has_class_predictions(folder):
        return None
    predictions, _ = read_predictions(folder)
    _check_same_cases(set(predictions), set(cases), folder)
    given, source = _names(options.class_names, predictions, folder)
    if options.classes:
        labels = load_class_labels(options.classes)
        metrics = evaluate_predictions(predictions, labels, given, resamples=2000, seed=0, names_source=source)
        names = metrics["class_names"]
    else:
        labels, metrics = ClassLabels({}, folder), None
        # the checks compare with labels; without any, the predictions stand in for them
        stated = ClassLabels({case: prediction.label for case, prediction in predictions.items()}, folder)
        names = check_predictions(predictions, stated, given, source)
    by_case = {
        case: ClassOfCase(
            prediction.label,
            None if prediction.probabilities is None else tuple(prediction.probabilities.tolist()),
            None if labels.by_case.get(case, UNKNOWN) == UNKNOWN else labels.by_case[case],
            bool(prediction.review),
            prediction.without_basis,
            prediction.unusual,
            prediction.reasons,
        )
        for case, prediction in predictions.items()
    }
    doubts = [
        *mixed_runs(predictions, options.predictions),  # where the manifests lie
        *cases_without_basis(predictions),
        *unusual_cases(predictions),
    ]
    return ClassResults(names, by_case, metrics, doubts)


def _check_same_cases(classified: set[str], segmented: set[str], folder: Path) -> None:
    for cases, lacking, what in (
        (segmented - classified, "class", "a segmentation"),
        (classified - segmented, "segmentation", "a class"),
    ):
        if cases:
            raise EvaluationError(
                f"{folder}: expected segmentation and class of the same cases; {len(cases)} cases have {what} but no "
                f"{lacking}: {listing(sorted(cases))}. Predict them again, or move their files away."
            )


def _names(
    given: Sequence[str] | None, predictions: Mapping[str, ClassPrediction], folder: Path
) -> tuple[Sequence[str] | None, str]:
    """Names of the classes and where they stand: those given, else those that all class files agree on."""
    if given:
        return given, "class_names"
    stated = {prediction.class_names for prediction in predictions.values()}
    names = next(iter(stated)) if len(stated) == 1 else None
    return names, f"class_names in the class files of {folder}"
