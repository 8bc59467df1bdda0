"""Charts in numbers: coordinates in units of an SVG, drawn by ``templates/charts.html``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_curve

from nnunet_3dct.formats.metrics_class import ClassificationMetrics
from nnunet_3dct.report.cohort import Cohort
from nnunet_3dct.report.wording import NONE, number, percent, title

SIDE = 260.0  # of a square chart
STRIP = 340.0  # length of the Dice axis
JITTER = (0, 5, -5, 2.5, -2.5)


@dataclass(frozen=True)
class Curve:
    """ROC curve of one class against the rest: ``points`` for a polyline, ``area`` under it as text."""

    name: str
    points: str
    area: str


@dataclass(frozen=True)
class Bin:
    """One point of the reliability diagram at ``x``, ``y`` with the radius ``r``, and what it says."""

    x: float
    y: float
    r: float
    n: int
    text: str


@dataclass(frozen=True)
class Strip:
    """Dice of one structure: a dot for each case and the box of the quartiles, ``x`` each.

    ``dots`` are ``(x, jitter, text)``; ``box`` holds the lowest value, the quartiles with the median, and the highest.
    """

    structure: str
    dots: list[tuple[float, float, str]]
    box: tuple[float, float, float, float, float]
    text: str


def roc_curves(cohort: Cohort) -> list[Curve]:
    """ROC curve of every class that occurs, by scikit-learn; empty if the metrics hold no AUC."""
    classes = cohort.classes
    areas = classes.metrics["auc_per_class"] if classes and classes.metrics else None
    if classes is None or not areas:
        return []
    known = [case for case in classes.by_case.values() if case.truth is not None and case.probabilities]
    truth = np.array([case.truth for case in known])
    scores = np.array([case.probabilities for case in known])
    curves = []
    for k, (name, area) in enumerate(zip(classes.names, areas, strict=True)):
        if area is not None:
            false_positive, true_positive, _ = roc_curve(truth == k, scores[:, k])
            points = zip(false_positive * SIDE, (1 - true_positive) * SIDE, strict=True)
            curves.append(Curve(name, " ".join(f"{x:.1f},{y:.1f}" for x, y in points), number(area)))
    return curves


def reliability(metrics: ClassificationMetrics) -> list[Bin]:
    """Points of the reliability diagram, for bins with cases."""
    points = []
    for cell in metrics["calibration"]["reliability"] if metrics["calibration"] else []:
        confidence, accuracy = cell["confidence"], cell["accuracy"]
        if confidence is None or accuracy is None:
            continue
        text = (
            f"probability {cell['low']:.1f} to {cell['high']:.1f}: {cell['n']} cases, mean probability "
            f"{percent(confidence)}, correct {percent(accuracy)}"
        )
        radius = 3 + 9 * float(np.sqrt(cell["n"] / metrics["n_samples"]))
        points.append(Bin(confidence * SIDE, (1 - accuracy) * SIDE, radius, cell["n"], text))
    return points


def dice_strips(cohort: Cohort) -> list[Strip]:
    """Distribution of the Dice of every structure; empty without references."""
    strips = []
    for structure in cohort.structures:
        values = [(case.metrics[structure]["Dice"], case) for case in cohort.cases if case.metrics]
        known = sorted(((dice, case.name) for dice, case in values if dice is not None), key=lambda pair: pair[0])
        if not known:
            continue
        box = np.quantile([dice for dice, _ in known], [0, 0.25, 0.5, 0.75, 1])
        dots = [
            (dice * STRIP, JITTER[k % len(JITTER)], f"{name}: {number(dice)}") for k, (dice, name) in enumerate(known)
        ]
        low, first, median, third, high = (number(value, 2) for value in box)
        text = f"median {median}, middle half {first} to {third}, range {low} to {high}, {_count(len(known))}"
        strips.append(Strip(title(structure), dots, tuple(box * STRIP), text))
    return strips


def _count(cases: int) -> str:
    return {0: NONE, 1: "1 case"}.get(cases, f"{cases} cases")
