"""Which of several trained models to use: compared out of fold by class and Dice, corrected for the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_3dct.errors import EvaluationError, SettingsError, listing
from nnunet_3dct.evaluation.bootstrap import check_resampling, units_of
from nnunet_3dct.evaluation.segmentation import check_num_processes
from nnunet_3dct.evaluation.selection.candidates import (
    Candidate,
    SharedCases,
    make_candidates,
    model_names,
    shared_cases,
)
from nnunet_3dct.evaluation.selection.comparison import compare_candidates
from nnunet_3dct.evaluation.selection.dice import dice_of_cases, no_dice, pair_dice, single_dice
from nnunet_3dct.evaluation.selection.models import TrainedModels, read_models
from nnunet_3dct.evaluation.selection.scores import ScoredCases
from nnunet_3dct.evaluation.trained_folds import TrainedFolds
from nnunet_3dct.formats.selection import SELECTION_METRICS, Selection, SelectionMetric, SelectionModel
from nnunet_3dct.paths import SEPARATOR, parse_model_name

STOCK = "nnUNetTrainer_CLSHeadSumFT"
FEWEST_RESAMPLES = 100
FEW_IN_CLASS = 5
Progress = Callable[[int, int], object]


def select_model(
    dataset: str | int | None = None,
    *,
    trainers: Sequence[str] | None = None,
    plans: Sequence[str] | None = None,
    configurations: Sequence[str] | None = None,
    models: Sequence[Path | str] = (),
    folds: Sequence[int] | None = None,
    ensembling: bool = True,
    metric: SelectionMetric = "f1_macro",
    reference: str | None = None,
    num_processes: int = 1,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Selection:
    """Compare trained models out of fold and say which to use.

    Candidates are single models (every case predicted by the fold that was not trained on it) and pairs of them, whose
    class probabilities are averaged; the Dice of a pair needs the ``.npz`` files of ``nnUNetv2_train ... --npz``. All
    are compared on the cases that all models have predicted. The score of the best of several candidates is too
    high, since it was chosen for it: ``best`` and ``selected`` have an estimate and an interval that are corrected for
    the choice (bootstrap bias corrected cross-validation), and differences between candidates have intervals that hold
    for all of them together.

    Args:
        dataset: name or number; all its models with class predictions take part, unless some are named.
        trainers, plans, configurations: names; None for all.
        models: folders of more models.
        folds: numbers; None for all that each model has.
        ensembling: whether pairs are candidates.
        metric: class score that decides: ``f1_macro``, ``balanced_accuracy`` or ``auc_macro``.
        reference: model that the others are set against, by trainer or by name of its folder; None for
            ``nnUNetTrainer_CLSHeadSumFT`` if it takes part, else the first.
        num_processes: cases whose Dice is computed at the same time (threads).
        resamples: of the bootstrap, at least 100; patients are drawn if the labels file names them, else cases.
        seed: of the resamples.
        progress: called with the number of segmentations compared so far and in all.

    Returns:
        The content of ``selection.json``; see :class:`~nnunet_3dct.formats.selection.Selection`.

    Raises:
        SettingsError: a setting is out of range, or a variable of nnU-Net is not set.
        CheckpointError: a named model does not exist.
        EvaluationError: a named model has no usable predictions, no case is shared, or splits or classes differ.
        ClassLabelsError: the class labels cannot be used.
        ImageError: a segmentation is unreadable or damaged.

    Examples:
        >>> import nnunet_3dct
        >>> selection = nnunet_3dct.select_model(models=[model], resamples=200)
        >>> selection["selected"]["name"] == model.name
        True
        >>> selection["n_cases"], selection["candidates"][0]["dice"]["value"] is None
        (3, False)
    """
    _check_settings(metric, resamples, seed, num_processes)
    read = read_models(dataset, trainers, plans, configurations, [Path(model) for model in models], folds)
    names = model_names(read.models)
    shared = shared_cases(read.models, names)
    candidates, notes = make_candidates(read.models, names, shared.cases, pairs=ensembling)
    if metric == "auc_macro":
        _require_probabilities(candidates)
    against = find_reference(reference, names)
    dice, dice_missing = _dice(read.models, candidates, shared, num_processes, progress)
    scored = ScoredCases(
        shared.truth,
        np.stack([candidate.predicted for candidate in candidates]),
        [candidate.probabilities for candidate in candidates],
        dice,
        shared.num_classes,
        units_of(shared.cases, shared.groups),
    )
    compared = compare_candidates(candidates, names, scored, dice_missing, metric, against, resamples, seed)
    patients = len(np.unique(scored.units))
    grouped = patients < len(shared.cases)
    return {
        "dataset": read.models[0].model.resolve().parent.name,
        "metric": metric,
        "n_cases": len(shared.cases),
        "n_class_cases": int(scored.known.sum()),
        "n_patients": patients if grouped else None,
        "cases": shared.cases,
        "models": [_describe(name, model) for name, model in zip(names, read.models, strict=True)],
        **compared,
        "cases_not_shared": shared.not_shared,
        "models_left_out": read.left_out,
        "failed_models": read.failed,
        "bootstrap": {
            "method": f"{'patients' if grouped else 'cases'} drawn with replacement within each true class",
            "level": 0.95,
            "resamples": resamples,
            "seed": seed,
        },
        "warnings": [*_warnings(read, names, shared), *notes, *_few(shared)],
    }


def _check_settings(metric: str, resamples: int, seed: int, num_processes: int) -> None:
    check_resampling(resamples, seed)
    check_num_processes(num_processes)
    if resamples < FEWEST_RESAMPLES:
        raise SettingsError(
            f"resamples: expected at least {FEWEST_RESAMPLES}, since the correction needs them, found {resamples}."
        )
    if metric not in SELECTION_METRICS:
        raise SettingsError(f"metric: expected one of {listing(SELECTION_METRICS)}, found {metric}.")


def _require_probabilities(candidates: Sequence[Candidate]) -> None:
    lacking = [candidate.name for candidate in candidates if candidate.probabilities is None]
    if lacking:
        raise EvaluationError(
            f"metric auc_macro: expected class probabilities of all models, found none of some cases of "
            f"{listing(lacking)}. Run the validation again (nnUNetv2_train ... --val), or choose another metric."
        )


def find_reference(reference: str | None, names: Sequence[str]) -> int:
    """Number of the model that a reference names, by its trainer or its name; by default the stock trainer's.

    Raises:
        SettingsError: no model, or more than one, has that name.
    """
    wanted = reference or STOCK
    fitting = [n for n, name in enumerate(names) if wanted == name or wanted == trainer_of(name)]
    if reference is None:
        return fitting[0] if fitting else 0
    if len(fitting) != 1:
        raise SettingsError(
            f"reference: expected the trainer or the name of one model, found {reference}, which "
            f"{len(fitting)} of them have. The models are {listing(names)}."
        )
    return fitting[0]


def trainer_of(name: str) -> str:
    """Trainer in the name of a model."""
    return name.rpartition("/")[2].split(SEPARATOR)[0]


@dataclass
class _Counter:
    """Tells how many segmentations are compared."""

    total: int
    progress: Progress | None
    done: int = 0

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _dice(
    models: Sequence[TrainedFolds],
    candidates: Sequence[Candidate],
    shared: SharedCases,
    num_processes: int,
    progress: Progress | None,
) -> tuple[np.ndarray, list[str | None]]:
    """Dice ``(K, N, L)`` of all candidates, and why it is missing."""
    counter = _Counter(len(candidates) * len(shared.cases), progress)
    compare = [dice_of_cases(model, shared.cases[0], num_processes, counter) for model in models]
    values: list[np.ndarray] = [single_dice(compare[0], model, shared.cases) for model in models]
    missing: list[str | None] = [None] * len(models)
    for candidate in candidates[len(models) :]:
        first, second = candidate.models
        found, reason = pair_dice(compare[first], models[first], models[second], shared.cases)
        values.append(no_dice(values[0].shape) if found is None else found)
        missing.append(reason)
        if found is None:
            counter.total -= len(shared.cases)
    return np.stack(values), missing


def _describe(name: str, model: TrainedFolds) -> SelectionModel:
    parts = parse_model_name(model.model)
    return {
        "name": name,
        "folder": str(model.model.resolve()),
        "dataset": model.model.resolve().parent.name,
        "trainer": parts.trainer,
        "plans": parts.plans,
        "configuration": parts.configuration,
        "folds": [fold.fold for fold in model.folds],
        "n_cases": len(model.predictions),
    }


def _warnings(read: TrainedModels, names: Sequence[str], shared: SharedCases) -> list[str]:
    """What makes the comparison less than it seems, from the models themselves and from the cases they share."""
    lines = [f"{name}: {line}" for name, model in zip(names, read.models, strict=True) for line in model.warnings]
    if shared.not_shared:
        lacking = sorted({name for without in shared.not_shared.values() for name in without}, key=list(names).index)
        folds = {name: [f.fold for f in m.folds] for name, m in zip(names, read.models, strict=True)}
        shown = listing([f"{name} (it has fold {listing(folds[name])})" for name in lacking])
        lines.append(
            f"{len(shared.cases)} of {len(shared.cases) + len(shared.not_shared)} cases are compared: the others are "
            f"missing in {shown}. Train the missing folds, or compare without "
            f"{'this model' if len(lacking) == 1 else 'these models'}"
        )
    return lines


def _few(shared: SharedCases) -> list[str]:
    """Classes that are rarely or never left out of a resample, so that the correction hardly sees them."""
    numbers = np.bincount(shared.truth[shared.truth >= 0], minlength=shared.num_classes)
    rare = [f"class {label} ({number})" for label, number in enumerate(numbers) if number < FEW_IN_CLASS]
    return [f"fewer than {FEW_IN_CLASS} compared cases of {listing(rare)}: intervals are too narrow"] if rare else []
