"""Calibration of fitted heads: each alone, and all folds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.special import log_softmax, softmax

from nnunet_3dct.evaluation.calibration import fit_calibration
from nnunet_3dct.formats.calibration import Calibration, remove_calibration, write_calibration
from nnunet_3dct.formats.checkpoint import fingerprint
from nnunet_3dct.formats.class_labels import UNKNOWN
from nnunet_3dct.training.fit_head import case_table
from nnunet_3dct.training.fitted_fold import FittedFold, Task
from nnunet_3dct.training.head_choice import choose

LEAST = 1e-12  # probability whose logarithm is taken


def calibrate_folds(
    folds: Sequence[FittedFold], probabilities: Mapping[str, np.ndarray], task: Task, output: Path
) -> Calibration | None:
    """Temperatures for single folds and for their average, fitted to cases that neither has seen.

    Args:
        folds: fitted.
        probabilities: of the validation cases of all folds, each by its fold.
        task: the classes.
        output: folder of the model, where ``calibration.json`` is written or, without a calibration, removed.

    Returns:
        What was written; None where the cases are of fewer than two classes.
    """
    labels = task.labels
    of_fold = {case: fold.number for fold in folds for case in fold.labels.validation}
    cases = sorted(case for case in probabilities if labels.by_case[case] != UNKNOWN)
    truth = np.array([labels.by_case[case] for case in cases])
    if len(np.unique(truth)) < 2:
        remove_calibration(output)
        return None
    logits = np.log(np.clip(np.stack([probabilities[case] for case in cases]), LEAST, None))
    parts = np.array([[fold.number for fold in folds].index(of_fold[case]) for case in cases])
    single = fit_calibration(logits, truth, parts)
    calibration: Calibration = {
        "temperature": single["temperature"] if single["helps"] else 1.0,
        "head_weights": {str(fold.number): fingerprint(fold.head.state_dict()) for fold in folds},
        "n_cases": len(cases),
        "folds": [int(fold.number) for fold in folds if fold.number != "all"],
        "before": {**single["before"]},
        "after": None if single["after"] is None else {**single["after"]},
        "helps": single["helps"],
        "review": [{**row} for row in single["review"]],
        "warnings": [],
    }
    if len(folds) > 1:
        together = fit_calibration(_ensemble_logits(folds, cases, of_fold, task), truth, parts)
        calibration["ensemble_temperature"] = together["temperature"] if together["helps"] else 1.0
        calibration["ensemble_before"] = {**together["before"]}
        calibration["ensemble_after"] = None if together["after"] is None else {**together["after"]}
    write_calibration(calibration, output)
    return calibration


def _ensemble_logits(
    folds: Sequence[FittedFold], cases: Sequence[str], of_fold: Mapping[str, int | str], task: Task
) -> np.ndarray:
    """What the average of all folds says of cases that no head was fitted to.

    The heads of all folds are fitted once more without the cases of one fold, whose cases they then predict; what was
    chosen stays. All networks but one have seen the case in training, so its outline may be a little too good: see
    docs/heads.md for what that makes.
    """
    found = np.zeros((len(cases), folds[0].head.num_classes))
    for left_out in folds:
        rows = [row for row, case in enumerate(cases) if of_fold[case] == left_out.number]
        if not rows:
            continue
        each = []
        for fold in folds:
            head = fold.head
            classes = {**fold.labels.training, **fold.labels.validation}
            rest = {case: k for case, k in classes.items() if of_fold.get(case) != left_out.number}
            table = case_table(fold.features, task.known(rest, clinical=False), head)
            offered = fold.choice.candidates
            choice = choose(table, head.layout, head.num_classes, weights=task.weights, offered=offered)
            logits = choice.logits(np.stack([fold.features[cases[row]] for row in rows]))
            each.append(softmax(logits, axis=1))
        found[rows] = np.log(np.clip(np.mean(each, axis=0), LEAST, None))
    return log_softmax(found, axis=1)
