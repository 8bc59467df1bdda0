"""Two prediction folders on the same cases: paired differences, so that the cases' own difficulty drops out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest, wilcoxon
from typing_extensions import TypedDict

from nnunet_3dct.errors import EvaluationError, SettingsError, listing
from nnunet_3dct.evaluation.bootstrap import check_resampling, draw_counts, mean_interval, percentile_interval
from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS, class_metrics
from nnunet_3dct.evaluation.classified_cases import classified_cases
from nnunet_3dct.evaluation.resampled_metrics import resampled_metrics
from nnunet_3dct.evaluation.segmentation import evaluate_segmentation
from nnunet_3dct.formats.class_labels import load_class_labels
from nnunet_3dct.formats.metrics_class import ClassComparison, ClassMetricName, Interval, McNemarTest, MetricDifference
from nnunet_3dct.formats.metrics_segmentation import (
    DiceDifference,
    SegmentationComparison,
    SegmentationMetrics,
    StructureComparison,
)
from nnunet_3dct.formats.prediction_folders import read_predictions


class Comparison(TypedDict):
    """Result of :func:`compare`; None for what was not asked for."""

    segmentation: SegmentationComparison | None
    classification: ClassComparison | None


def compare(
    first: Path | str,
    second: Path | str,
    *,
    references: Path | str | None = None,
    dataset_json: Path | str | None = None,
    classes: Path | str | None = None,
    class_names: Sequence[str] | None = None,
    num_processes: int = 1,
    chill: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two prediction folders on the same cases, case by case.

    Args:
        first, second: prediction folders.
        references: folder of reference label volumes, to compare segmentations.
        dataset_json: the dataset's ``dataset.json``; None for the one in ``first``.
        classes: ``classification.json`` or ``classification.csv``, to compare classes.
        class_names: of the classes 0, 1, ...
        num_processes: cases compared at the same time (threads).
        chill: accept references without a prediction.
        resamples: of the bootstrap, which draws the same cases for both; 0 for no intervals.
        seed: of the resamples.

    Returns:
        ``segmentation``: of each structure the mean Dice of both, the difference (first minus second) with its 95 %
        interval and the p-value of Wilcoxon's signed-rank test. ``classification``: each class metric of both, the
        difference with its interval, and McNemar's exact test of the accuracy.

    Raises:
        SettingsError: neither ``references`` nor ``classes`` is given, or a setting is out of range.
        EvaluationError: the folders hold other cases, or do not fit references or classes.
        ClassLabelsError: the class labels cannot be used.
        ImageError: a segmentation cannot be read.

    Examples:
        >>> import nnunet_3dct
        >>> found = nnunet_3dct.compare(
        ...     predictions, predictions, references=labels, dataset_json=dataset_json, classes=classes
        ... )
        >>> round(found["segmentation"]["structures"]["organ"]["Dice"]["difference"], 3)
        0.0
        >>> found["classification"]["mcnemar"]["p_value"]
        1.0
    """
    if references is None and classes is None:
        raise SettingsError("compare: expected references, classes or both, found neither.")
    check_resampling(resamples, seed)
    segmentation, classification = None, None
    if references is not None:
        description = dataset_json or Path(first) / "dataset.json"
        one, other = (
            evaluate_segmentation(references, folder, description, num_processes=num_processes, chill=chill)
            for folder in (first, second)
        )
        segmentation = compare_segmentations(one, other, first, second, resamples=resamples, seed=seed)
    if classes is not None:
        classification = compare_classifications(first, second, classes, class_names, resamples=resamples, seed=seed)
    return {"segmentation": segmentation, "classification": classification}


def compare_classifications(
    first: Path | str,
    second: Path | str,
    labels_file: Path | str,
    class_names: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> ClassComparison:
    """Compare the classes that two folders predict for the same cases.

    Returns:
        ``metrics`` (name -> first, second, difference first minus second, its 95 % interval from resamples that draw
        the same cases for both) and ``mcnemar``: the cases that only one of the two has right, and the two-sided
        exact p-value (McNemar 1947) for equal accuracy.

    Raises:
        EvaluationError: the folders hold other cases or other classes, or do not fit the labels.
        ClassLabelsError: the labels file cannot be used.
    """
    check_resampling(resamples, seed)
    labels = load_class_labels(Path(labels_file))
    read = [read_predictions(Path(folder))[0] for folder in (first, second)]
    check_same_cases(first, set(read[0]), second, set(read[1]))
    one, other = (classified_cases({case: p[case] for case in sorted(p)}, labels, class_names) for p in read)
    if len(one.names) != len(other.names):
        raise EvaluationError(
            f"Comparison: expected the same classes in both folders, found {len(one.names)} in {first} and "
            f"{len(other.names)} in {second}."
        )
    points = [class_metrics(c.truth, c.predicted, c.probabilities, c.names) for c in (one, other)]
    drawn: list[dict[str, np.ndarray]] = [{}, {}]
    if resamples:
        counts = draw_counts(one.truth, resamples, seed)
        drawn = [resampled_metrics(counts, c.truth, c.predicted, c.probabilities, len(c.names)) for c in (one, other)]
    metrics: dict[ClassMetricName, MetricDifference] = {}
    for name in CLASS_METRICS:
        mine, others = (point[name] for point in points)
        if mine is None or others is None:
            continue
        interval = percentile_interval(drawn[0][name] - drawn[1][name]) if resamples else None
        metrics[name] = _difference(mine, others, interval)
    return {
        "first": str(first),
        "second": str(second),
        "n_samples": len(one.cases),
        "metrics": metrics,
        "mcnemar": mcnemar(one.predicted == one.truth, other.predicted == other.truth),
    }


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemarTest:
    """Exact test of McNemar on which cases ``(N,)`` each of two predictions has right."""
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return {"only_first_correct": only_first, "only_second_correct": only_second, "p_value": p_value}


def compare_segmentations(
    first: SegmentationMetrics,
    second: SegmentationMetrics,
    first_folder: Path | str,
    second_folder: Path | str,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> SegmentationComparison:
    """Compare two results of :func:`~nnunet_3dct.evaluation.segmentation.evaluate_segmentation`, case by case.

    Args:
        first, second: results.
        first_folder, second_folder: which they are of.
        resamples: of the bootstrap, 0 for no intervals.
        seed: of the resamples.

    Returns:
        For each structure ``Dice``: mean of the first and the second, mean difference first minus second with its
        95 % bootstrap interval, the two-sided p-value of Wilcoxon's signed-rank test (1945; None where no case
        differs), the number of cases, and the cases left out because one of them has no Dice.

    Raises:
        EvaluationError: the results hold other cases or structures.
    """
    by_case = [{case["case"]: case["metrics"] for case in result["metric_per_case"]} for result in (first, second)]
    check_same_cases(first_folder, set(by_case[0]), second_folder, set(by_case[1]))
    if set(first["structures"]) != set(second["structures"]):
        raise EvaluationError(
            f"Comparison: expected the same structures, found {listing(list(first['structures']))} and "
            f"{listing(list(second['structures']))}."
        )
    structures: dict[str, StructureComparison] = {}
    for name in first["structures"]:
        dice = {case: [side[case][name]["Dice"] for side in by_case] for case in sorted(by_case[0])}
        pairs = np.array([pair for pair in dice.values() if None not in pair], dtype=float).reshape(-1, 2)
        structures[name] = {
            "Dice": _paired(pairs, resamples, seed),
            "n": len(pairs),
            "without_dice": [case for case, pair in dice.items() if None in pair],
        }
    return {
        "first": str(first_folder),
        "second": str(second_folder),
        "n_cases": len(by_case[0]),
        "structures": structures,
    }


def _paired(pairs: np.ndarray, resamples: int, seed: int) -> DiceDifference | None:
    if not len(pairs):
        return None
    differences = pairs[:, 0] - pairs[:, 1]
    return {
        **_difference(
            float(pairs[:, 0].mean()), float(pairs[:, 1].mean()), mean_interval(differences, resamples, seed)
        ),
        "wilcoxon_p_value": float(wilcoxon(differences).pvalue) if differences.any() else None,
    }


def _difference(first: float, second: float, interval: Interval | None) -> MetricDifference:
    return {"first": first, "second": second, "difference": first - second, "interval": interval}


def check_same_cases(
    first: Path | str, in_first: Collection[str], second: Path | str, in_second: Collection[str]
) -> None:
    """Raise an EvaluationError that names the cases which only one of two folders holds."""
    sides = ((first, set(in_first) - set(in_second), second), (second, set(in_second) - set(in_first), first))
    for here, cases, there in sides:
        if cases:
            raise EvaluationError(
                f"Comparison: expected the same cases in both folders, found {len(cases)} in {here} that {there} "
                f"lacks: {listing(sorted(cases), 5)}. Predict them in both, or compare copies of the folders without "
                "them."
            )
