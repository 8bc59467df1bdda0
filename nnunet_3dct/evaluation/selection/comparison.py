"""The table of candidates: scores, differences, what is best and what to use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from typing_extensions import TypedDict

from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.evaluation.bootstrap import classes_of_units, draw_units, known_interval
from nnunet_3dct.evaluation.selection.candidates import Candidate
from nnunet_3dct.evaluation.selection.correction import corrected_score, out_of_bag_counts, share_left_out
from nnunet_3dct.evaluation.selection.differences import half_widths, small_sample_widening
from nnunet_3dct.evaluation.selection.rule import DICE_MARGIN, Choice, choose
from nnunet_3dct.evaluation.selection.scores import ScoredCases, class_scores, mean_dice
from nnunet_3dct.formats.selection import (
    SELECTION_METRICS,
    ChosenCandidate,
    Difference,
    Score,
    SelectionCandidate,
    SelectionMetric,
)


class Compared(TypedDict):
    """The part of :class:`~nnunet_3dct.formats.selection.Selection` that is computed here."""

    candidates: list[SelectionCandidate]
    reference: str
    best: ChosenCandidate
    selected: ChosenCandidate
    indistinguishable: list[str]
    dice_margin: float


def compare_candidates(
    candidates: Sequence[Candidate],
    models: Sequence[str],
    cases: ScoredCases,
    dice_missing: Sequence[str | None],
    metric: SelectionMetric,
    reference: int,
    resamples: int,
    seed: int,
) -> Compared:
    """Score candidates, compare them and apply the rule; all on the same resamples.

    Args:
        candidates: K single models and pairs.
        models: names of the models.
        cases: what the candidates say.
        dice_missing: why a candidate has no Dice.
        metric: class score that decides.
        reference: number of the candidate that the others are set against.
        resamples, seed: of the bootstrap.

    Raises:
        EvaluationError: the class score has no value, as the AUC where all cases are of one class.
    """
    counts = draw_units(cases.truth, cases.units, resamples, seed)
    once = np.ones((1, len(cases.truth)))
    scores = {name: class_scores(cases, once, name)[0] for name in SELECTION_METRICS}
    resampled = {name: class_scores(cases, counts, name) for name in SELECTION_METRICS}
    dice, resampled_dice = mean_dice(cases, once)[0], mean_dice(cases, counts)
    if np.isnan(scores[metric]).any():
        raise EvaluationError(f"metric {metric}: it has no value, since all compared cases are of one class.")
    sizes = np.unique(classes_of_units(cases.truth, cases.units), return_counts=True)[1]
    widths = half_widths(scores[metric], resampled[metric], reference, widening=small_sample_widening(sizes))
    networks = np.array([len(candidate.models) for candidate in candidates])

    def decide(of_class: np.ndarray, of_dice: np.ndarray) -> Choice:
        return choose(of_class, of_dice, widths.all_pairs, networks)

    choice = decide(scores[metric][None], dice[None])
    repeated = decide(resampled[metric], resampled_dice)
    left_out = class_scores(cases, out_of_bag_counts(counts), metric)
    share = share_left_out(counts, cases.units)
    best, selected = int(choice.best[0]), int(choice.selected[0])

    def chosen(number: int, choices: np.ndarray) -> ChosenCandidate:
        raw = _score(scores[metric][number], resampled[metric][:, number])
        corrected = raw if len(candidates) == 1 else corrected_score(choices, left_out, scores[metric], share)
        value = corrected["value"]
        return {
            "name": candidates[number].name,
            "models": [models[n] for n in candidates[number].models],
            "raw": raw,
            "corrected": corrected,
            "optimism": None if value is None else float(scores[metric][number] - value),
        }

    def difference(number: int, other: int, half: float) -> Difference | None:
        if number == other:
            return None
        value = scores[metric][number] - scores[metric][other]
        return {"difference": float(value), "interval": (float(value - half), float(value + half))}

    rows: list[SelectionCandidate] = [
        {
            "name": candidate.name,
            "models": [models[n] for n in candidate.models],
            "f1_macro": _score(scores["f1_macro"][k], resampled["f1_macro"][:, k]),
            "balanced_accuracy": _score(scores["balanced_accuracy"][k], resampled["balanced_accuracy"][:, k]),
            "auc_macro": _score(scores["auc_macro"][k], resampled["auc_macro"][:, k]),
            "dice": _score(dice[k], resampled_dice[:, k]),
            "dice_missing": dice_missing[k],
            "to_best": difference(k, best, widths.all_pairs[k, best]),
            "to_reference": difference(k, reference, widths.to_reference[k]),
            "not_worse": bool(choice.not_worse[0, k]),
            "dice_sufficient": None if np.isnan(dice[k]) else bool(choice.sufficient[0, k]),
            "best_share": float((repeated.best == k).mean()),
        }
        for k, candidate in enumerate(candidates)
    ]
    return {
        "candidates": rows,
        "reference": candidates[reference].name,
        "best": chosen(best, repeated.best),
        "selected": chosen(selected, repeated.selected),
        "indistinguishable": [row["name"] for row in rows if row["not_worse"] and row["to_best"]],
        "dice_margin": DICE_MARGIN,
    }


def _score(value: float, resampled: np.ndarray) -> Score:
    """Value and percentile interval, both None where there is no value."""
    interval = known_interval(resampled)
    if np.isnan(value) or interval is None:
        return {"value": None, "interval": None}
    return {"value": float(value), "interval": interval}
