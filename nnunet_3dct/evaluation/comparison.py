"""Two prediction folders on the same cases: paired differences, so that the cases' own difficulty drops out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, wilcoxon

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.bootstrap import draw_counts, mean_interval, percentile_interval, resampled_metrics
from nnunet_3dct.evaluation.class_metrics import CLASS_METRICS, class_metrics
from nnunet_3dct.evaluation.classification import check_resampling, classified_cases
from nnunet_3dct.formats.class_files import read_predictions
from nnunet_3dct.formats.class_labels import load_class_labels


def compare_classifications(
    first: Path,
    second: Path,
    labels_file: Path,
    class_names: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
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
            f"--compare: expected the same classes in both folders, found {len(one.names)} in {first} and "
            f"{len(other.names)} in {second}."
        )
    points = [class_metrics(c.truth, c.predicted, c.probabilities, c.names) for c in (one, other)]
    drawn: list[dict[str, np.ndarray]] = [{}, {}]
    if resamples:
        counts = draw_counts(one.truth, resamples, seed)
        drawn = [resampled_metrics(counts, c.truth, c.predicted, c.probabilities, len(c.names)) for c in (one, other)]
    metrics = {}
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


def mcnemar(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Exact test of McNemar on which cases ``(N,)`` each of two predictions has right."""
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return {"only_first_correct": only_first, "only_second_correct": only_second, "p_value": p_value}


def compare_segmentations(
    first: dict[str, Any], second: dict[str, Any], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Compare two results of :func:`~nnunet_3dct.evaluation.segmentation.evaluate_segmentation`, case by case.

    Returns:
        For each structure ``Dice``: mean of the first and the second, mean difference first minus second with its
        95 % bootstrap interval, the two-sided p-value of Wilcoxon's signed-rank test (1945; None where no case
        differs), the number of cases, and the cases left out because one of them has no Dice.

    Raises:
        EvaluationError: the results hold other cases or structures.
    """
    by_case = [{case["case"]: case["metrics"] for case in result["metric_per_case"]} for result in (first, second)]
    check_same_cases("the first folder", set(by_case[0]), "the second", set(by_case[1]))
    if set(first["structures"]) != set(second["structures"]):
        raise EvaluationError(
            f"--compare: expected the same structures, found {listing(list(first['structures']))} and "
            f"{listing(list(second['structures']))}."
        )
    structures = {}
    for name in first["structures"]:
        dice = {case: [side[case][name]["Dice"] for side in by_case] for case in sorted(by_case[0])}
        pairs = np.array([pair for pair in dice.values() if None not in pair], dtype=float).reshape(-1, 2)
        structures[name] = {
            "Dice": _paired(pairs, resamples, seed),
            "n": len(pairs),
            "without_dice": [case for case, pair in dice.items() if None in pair],
        }
    return {"n_cases": len(by_case[0]), "structures": structures}


def _paired(pairs: np.ndarray, resamples: int, seed: int) -> dict[str, Any] | None:
    if not len(pairs):
        return None
    differences = pairs[:, 0] - pairs[:, 1]
    interval = mean_interval(differences, resamples, seed)
    found = _difference(float(pairs[:, 0].mean()), float(pairs[:, 1].mean()), interval)
    found["wilcoxon_p_value"] = float(wilcoxon(differences).pvalue) if differences.any() else None
    return found


def _difference(first: float, second: float, interval: tuple[float, float] | None) -> dict[str, Any]:
    return {"first": first, "second": second, "difference": first - second, "interval": interval}


def check_same_cases(first: object, in_first: set[str], second: object, in_second: set[str]) -> None:
    """Raise an EvaluationError that names the cases which only one of two folders holds."""
    for here, cases, there in ((first, in_first - in_second, second), (second, in_second - in_first, first)):
        if cases:
            raise EvaluationError(
                f"--compare: expected the same cases in both folders, found {len(cases)} in {here} that {there} lacks: "
                f"{listing(sorted(cases), 5)}. Predict them in both, or compare copies of the folders without them."
            )
