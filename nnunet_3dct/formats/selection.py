"""``selection.json`` and ``selection_instructions.txt``: names and content of the former.

Values without a meaning are None (``null``). Intervals are ``(low, high)`` and cover 95 %.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from nnunet_3dct.formats.metrics_class import Bootstrap, Interval

SELECTION = "selection.json"
INSTRUCTIONS = "selection_instructions.txt"

SelectionMetric = Literal["f1_macro", "balanced_accuracy", "auc_macro"]
SELECTION_METRICS: tuple[SelectionMetric, ...] = ("f1_macro", "balanced_accuracy", "auc_macro")


class Score(TypedDict):
    """A value over the compared cases and the interval of that value alone, without regard to any choice."""

    value: float | None
    interval: Interval | None


class Difference(TypedDict):
    """Class score minus that of another candidate; the intervals hold for all differences of their kind together."""

    difference: float
    interval: Interval


class SelectionModel(TypedDict):
    """A trained model that takes part."""

    name: str
    folder: str
    dataset: str
    trainer: str
    plans: str
    configuration: str
    folds: list[int]
    n_cases: int


class SelectionCandidate(TypedDict):
    """A model, or a pair of models whose probabilities are averaged.

    Attributes:
        name: of the model, or of both joined by `` + ``.
        models: names of its models.
        f1_macro, balanced_accuracy, auc_macro: class scores.
        dice: mean over the cases, then over the foreground labels, as in nnU-Net.
        dice_missing: why the Dice is not known, and how to get it.
        to_best: to the candidate with the best class score, None for itself.
        to_reference: to the reference, None for itself.
        not_worse: whether the interval of ``to_best`` leaves open that it is as good.
        dice_sufficient: whether its Dice is close enough to the best of those that are not worse; None if not known.
        best_share: share of the resamples in which its class score is the best.
    """

    name: str
    models: list[str]
    f1_macro: Score
    balanced_accuracy: Score
    auc_macro: Score
    dice: Score
    dice_missing: str | None
    to_best: Difference | None
    to_reference: Difference | None
    not_worse: bool
    dice_sufficient: bool | None
    best_share: float


class ChosenCandidate(TypedDict):
    """A candidate that was chosen after looking at its score.

    Attributes:
        name, models: as in :class:`SelectionCandidate`.
        raw: its class score and interval, as if it had been the only candidate.
        corrected: what this way of choosing scores on cases that it did not choose with; None with too few cases.
        optimism: raw minus corrected value.
    """

    name: str
    models: list[str]
    raw: Score
    corrected: Score
    optimism: float | None


class Selection(TypedDict):
    """Content of ``selection.json``.

    Attributes:
        dataset: of the first model.
        metric: the class score that decides.
        n_cases: that all models have predicted, and that are compared.
        n_class_cases: of these, with a known class.
        n_patients: of these cases; None if no patients are known, then cases are drawn.
        cases: the compared ones.
        models, candidates: single models first, then pairs.
        reference: name of the candidate that the others are set against.
        best: candidate with the highest class score.
        selected: the one to use.
        indistinguishable: candidates that the cases cannot tell from the best by class.
        dice_margin: by how much the Dice of the selected one may be below.
        cases_not_shared: case -> models that have not predicted it.
        models_left_out: model -> why.
        failed_models: those of them that could not be read.
        bootstrap: how the intervals were made.
        warnings: what makes the comparison less than it seems.
    """

    dataset: str
    metric: SelectionMetric
    n_cases: int
    n_class_cases: int
    n_patients: int | None
    cases: list[str]
    models: list[SelectionModel]
    candidates: list[SelectionCandidate]
    reference: str
    best: ChosenCandidate
    selected: ChosenCandidate
    indistinguishable: list[str]
    dice_margin: float
    cases_not_shared: dict[str, list[str]]
    models_left_out: dict[str, str]
    failed_models: list[str]
    bootstrap: Bootstrap
    warnings: list[str]
