"""Which features of a case and which linear classifier: chosen by cross-validation among the training cases.

Patients stay together, and the choice itself is cross-validated (nested) for the estimate that is reported: Varma and
Simon, Bias in error estimation when using cross-validation for model selection, BMC Bioinformatics 2006. The models
that do best are averaged, since with some hundred cases the best one is best by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedGroupKFold

from nnunet_3dct.evaluation.temperature import fit_temperature
from nnunet_3dct.networks.case_layout import COVARIATES, MEASURED, CaseLayout
from nnunet_3dct.training.class_loss import Weights, class_weights
from nnunet_3dct.training.linear_classifiers import LDA, LOGISTIC, STRENGTHS, Candidate, Linear, Scaling

FOLDS, REPEATS = 5, 3
AVERAGED = 3  # classifiers
WIDEST = 1500  # columns of a candidate; wider ones cost minutes and do not win
LIMIT = 5.0


@dataclass(frozen=True)
class CaseTable:
    """Features and classes of cases.

    Attributes:
        cases: identifiers ``(N,)``.
        columns: ``(N, width)``; NaN where something is missing.
        classes: ``(N,)``.
        groups: patient of each case ``(N,)``.
    """

    cases: tuple[str, ...]
    columns: np.ndarray
    classes: np.ndarray
    groups: tuple[str, ...]

    def part(self, rows: np.ndarray) -> CaseTable:
        """Some of the cases, by their numbers."""
        return CaseTable(
            tuple(self.cases[row] for row in rows),
            self.columns[rows],
            self.classes[rows],
            tuple(self.groups[row] for row in rows),
        )


@dataclass(frozen=True)
class Choice:
    """What was chosen and fitted.

    Attributes:
        candidates: that are averaged, the best first.
        scaling, model: the fit to all cases.
        log_losses: of every candidate in the cross-validation, by its name.
        held_out: class logits ``(N, num_classes)`` of each case by fits of the chosen candidates to other cases;
            optimistic, since the choice saw them.
        temperature: that these logits were divided by, taken into the model.
    """

    candidates: tuple[Candidate, ...]
    scaling: Scaling
    model: Linear
    log_losses: Mapping[str, float]
    held_out: np.ndarray
    temperature: float

    def logits(self, columns: np.ndarray) -> np.ndarray:
        """Class logits ``(N, num_classes)`` of columns ``(N, width)``."""
        return self.model.logits(self.scaling(columns))


def candidates(layout: CaseLayout) -> list[Candidate]:
    """What there is to choose from.

    A few sets of blocks with each classifier: the shallow stages of the encoder, what is measured of the image, both,
    and everything. Among more of them the best one is best by chance. Covariates, where there are any, are tried with
    every set and alone.
    """
    present = [block for block in MEASURED if block in layout.blocks]
    stages = [block for block in layout.blocks if block.startswith(("encoder", "decoder")) and "image" not in block]
    encoder = [block for block in stages if block.startswith("encoder")]
    sets: list[tuple[str, ...]] = [
        tuple(encoder[:2]),
        ("profile", "edge"),
        tuple(present),
        (*encoder[:2], *present),
        (*stages, *present),
    ]
    sets = [tuple(block for block in blocks if block in layout.blocks) for blocks in sets]
    if COVARIATES in layout.blocks:
        sets = [(COVARIATES,), *sets, *((*blocks, COVARIATES) for blocks in sets)]
    kept = [blocks for blocks in dict.fromkeys(sets) if blocks and len(layout.columns(blocks)) <= WIDEST]
    ways: list[tuple[str, float | None]] = [(LDA, None), *((LOGISTIC, strength) for strength in STRENGTHS)]
    return [Candidate(classifier, blocks, strength) for blocks in kept for classifier, strength in ways]


def choose(
    table: CaseTable,
    layout: CaseLayout,
    num_classes: int,
    *,
    weights: Weights = "balanced",
    repeats: int = REPEATS,
    averaged: int = AVERAGED,
    offered: Sequence[Candidate] | None = None,
) -> Choice:
    """Choose by cross-validated log loss and fit to all cases.

    Args:
        table: training cases of known class, two of each of two classes at least.
        layout: of the columns.
        num_classes: of the head.
        weights: of the classes in fit and choice, as for :func:`~nnunet_3dct.training.class_loss.class_weights`.
        repeats: of the cross-validation.
        averaged: number of candidates that are averaged.
        offered: candidates; by default :func:`candidates`.

    Returns:
        The choice. Every class that occurs once only is fitted, but not cross-validated.
    """
    offered = list(offered if offered is not None else candidates(layout))
    parts = _parts(table, repeats)
    fewest = min((len(training) for _, training, _ in parts), default=len(table.cases))
    if fewest <= len(np.unique(table.classes)):  # too few for covariances
        offered = [candidate for candidate in offered if candidate.classifier != LDA]
    columns = {candidate: layout.columns(candidate.blocks) for candidate in offered}
    held_out = np.zeros((len(offered), repeats, len(table.cases), num_classes))
    for repeat, training, rest in parts:
        scaling = Scaling.of(table.columns[training], LIMIT)
        x, z = scaling(table.columns[training]), scaling(table.columns[rest])
        y = table.classes[training]
        for number, candidate in enumerate(offered):
            model = candidate.fit(x, y, columns[candidate], of_classes(weights, y, num_classes))
            held_out[number, repeat, rest] = model.logits(z)
    mean = held_out.mean(1)
    class_weight = of_classes(weights, table.classes, num_classes)
    of_case = class_weight[table.classes]
    losses, temperatures = zip(*(_loss(logits, table.classes, of_case) for logits in mean), strict=True)
    order = np.argsort(losses, kind="stable")[:averaged]
    best = tuple(offered[number] for number in order)
    scaling = Scaling.of(table.columns, LIMIT)
    x = scaling(table.columns)
    fits = [
        candidate.fit(x, table.classes, columns[candidate], class_weight).scaled(1 / temperatures[number])
        for number, candidate in zip(order, best, strict=True)
    ]
    together = np.mean([mean[number] / temperatures[number] for number in order], axis=0)
    temperature = fit_temperature(together, table.classes)
    return Choice(
        best,
        scaling,
        Linear.average(fits).scaled(1 / temperature),
        {str(candidate): float(loss) for candidate, loss in zip(offered, losses, strict=True)},
        together / temperature,
        temperature,
    )


def nested(
    table: CaseTable,
    layout: CaseLayout,
    num_classes: int,
    *,
    weights: Weights = "balanced",
    folds: int = FOLDS,
    seed: int = 0,
) -> np.ndarray:
    """Class probabilities ``(N, num_classes)`` of each case by a choice and a fit that knew nothing of it."""
    probabilities = np.zeros((len(table.cases), num_classes))
    for training, rest in _split(table, folds, seed):
        choice = choose(table.part(training), layout, num_classes, weights=weights)
        probabilities[rest] = softmax(choice.logits(table.columns[rest]), axis=1)
    return probabilities


def of_classes(weights: Weights, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Weight of a case of each class ``(num_classes,)``."""
    counts = np.bincount(classes, minlength=num_classes).tolist()
    return np.array(class_weights(weights, counts) or [1.0] * num_classes)


def _loss(logits: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Weighted log loss at the best temperature, and that: how sure a classifier is can be mended afterwards."""
    temperature = fit_temperature(logits, classes)
    right = log_softmax(logits / temperature, axis=1)[np.arange(len(classes)), classes]
    return float(-(weights * right).sum() / weights.sum()), temperature


def _parts(table: CaseTable, repeats: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    return [(r, training, rest) for r in range(repeats) for training, rest in _split(table, FOLDS, r)]


def _split(table: CaseTable, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stratified folds with the cases of a patient together; a training part always holds two classes."""
    counts = np.bincount(table.classes)
    folds = max(2, min(folds, int(counts[counts > 1].min()), len(set(table.groups))))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [
        (training, rest)
        for training, rest in splitter.split(table.columns, table.classes, table.groups)
        if len(np.unique(table.classes[training])) > 1
    ]
