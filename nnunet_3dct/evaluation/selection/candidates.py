"""Single models and pairs of them, side by side on the cases that all models have predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.evaluation.classified_cases import check_predictions
from nnunet_3dct.evaluation.trained_folds import TrainedFolds
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.class_label_files import UNKNOWN

JOINED = " + "
SHOWN = 5


@dataclass(frozen=True)
class Candidate:
    """A model or a pair of models.

    Attributes:
        name: for tables.
        models: numbers of its models.
        predicted: classes ``(N,)``.
        probabilities: ``(N, C)``; None where a case has none.
    """

    name: str
    models: tuple[int, ...]
    predicted: np.ndarray
    probabilities: np.ndarray | None


@dataclass(frozen=True)
class SharedCases:
    """Cases that all models have predicted.

    Attributes:
        cases: N of them, sorted.
        truth: their classes ``(N,)``, -1 for unknown.
        num_classes: of the models.
        groups: case -> patient.
        not_shared: case -> names of the models that have not predicted it.
    """

    cases: list[str]
    truth: np.ndarray
    num_classes: int
    groups: dict[str, str]
    not_shared: dict[str, list[str]]


def model_names(models: Sequence[TrainedFolds]) -> list[str]:
    """Folder names, with the dataset before them where two are alike."""
    names = [model.model.resolve().name for model in models]
    datasets = [model.model.resolve().parent.name for model in models]
    return [f"{d}/{n}" if names.count(n) > 1 else n for n, d in zip(names, datasets, strict=True)]


def shared_cases(models: Sequence[TrainedFolds], names: Sequence[str]) -> SharedCases:
    """Find the cases that all models have predicted, and check that models, splits and labels fit each other.

    Raises:
        EvaluationError: they do not, or no case is shared; the message names models and cases.
    """
    sizes = [len(check_predictions(m.predictions, m.labels, m.class_names)) for m in models]
    fold_of = [{case: fold.fold for fold in m.folds for case in fold.predictions} for m in models]
    everything = sorted(set().union(*fold_of))
    cases = [case for case in everything if all(case in folds for folds in fold_of)]
    if not cases:
        shown = [f"{name} (folds {listing([f.fold for f in m.folds])})" for name, m in zip(names, models, strict=True)]
        raise EvaluationError(
            f"Comparison: expected cases that all models have predicted out of fold, found none: {listing(shown)}. "
            "Train the same folds of all models, or compare fewer of them."
        )
    for name, size, model, folds in zip(names[1:], sizes[1:], models[1:], fold_of[1:], strict=True):
        _check_fit(names[0], name, models[0], model, (sizes[0], size))
        other = [case for case in cases if folds[case] != fold_of[0][case]]
        if other:
            raise EvaluationError(
                f"Comparison: expected the same splits for all models, found {len(other)} cases in other folds: case "
                f"{other[0]} is validated in fold {fold_of[0][other[0]]} of {names[0]} and in fold {folds[other[0]]} "
                f"of {name}. Train both with one splits_final.json."
            )
        _check_labels(names[0], name, models[0], model, cases)
    labels = models[0].labels
    truth = np.array([labels.by_case[case] for case in cases])
    if (truth == UNKNOWN).all():
        raise EvaluationError(
            f"Comparison: expected cases of known class, found none: all {len(cases)} compared cases have the label -1 "
            f"(unknown) in {labels.source}."
        )
    lacking = {c: [n for n, folds in zip(names, fold_of, strict=True) if c not in folds] for c in everything}
    return SharedCases(cases, truth, sizes[0], labels.groups, {c: without for c, without in lacking.items() if without})


def _check_fit(first: str, second: str, one: TrainedFolds, other: TrainedFolds, sizes: tuple[int, int]) -> None:
    if sizes[0] != sizes[1]:
        raise EvaluationError(
            f"Comparison: expected the same classes in all models, found {sizes[0]} in {first} and {sizes[1]} in "
            f"{second}. Leave one of them out."
        )
    structures = [
        read_json(model.dataset_json, "Description of the model's dataset", EvaluationError).get("labels")
        for model in (one, other)
    ]
    if structures[0] != structures[1]:
        raise EvaluationError(
            f"Comparison: expected the same labels in dataset.json of all models, found {structures[0]} in {first} and "
            f"{structures[1]} in {second}. Leave one of them out."
        )


def _check_labels(first: str, second: str, one: TrainedFolds, other: TrainedFolds, cases: Sequence[str]) -> None:
    for case in cases:
        stated = one.labels.by_case[case], other.labels.by_case[case]
        if stated[0] != stated[1]:
            raise EvaluationError(
                f"Comparison: expected the same class labels for all models, found class {stated[0]} of case {case} in "
                f"{one.labels.source} ({first}) and {stated[1]} in {other.labels.source} ({second}). Correct one."
            )


def make_candidates(
    models: Sequence[TrainedFolds], names: Sequence[str], cases: Sequence[str], *, pairs: bool
) -> tuple[list[Candidate], list[str]]:
    """All single models, then all pairs, whose class probabilities are averaged.

    Returns:
        The candidates, and a line for each model without probabilities, of which no pair is made.
    """
    singles, notes = [], []
    for number, (model, name) in enumerate(zip(models, names, strict=True)):
        predictions = [model.predictions[case] for case in cases]
        rows = [p.probabilities for p in predictions]
        given = [row for row in rows if row is not None]
        lacking = [case for case, row in zip(cases, rows, strict=True) if row is None]
        probabilities = None if lacking else np.stack(given)
        singles.append(Candidate(name, (number,), np.array([p.label for p in predictions]), probabilities))
        if lacking:
            notes.append(
                f"{name}: no class probabilities of {listing(lacking, SHOWN)}, so it has no AUC and is in no pair"
            )
    if not pairs:
        return singles, notes
    return [*singles, *(_pair(a, b) for a, b in combinations(singles, 2) if _has_probabilities(a, b))], notes


def _has_probabilities(*candidates: Candidate) -> bool:
    return all(candidate.probabilities is not None for candidate in candidates)


def _pair(first: Candidate, second: Candidate) -> Candidate:
    assert first.probabilities is not None and second.probabilities is not None
    mean = (first.probabilities + second.probabilities) / 2
    return Candidate(first.name + JOINED + second.name, first.models + second.models, mean.argmax(axis=1), mean)
