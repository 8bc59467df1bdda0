"""A last step of training: the case head fitted to whole volumes of the training cases.

Patches are what a network needs to learn features, but few steps of gradient descent on them leave a linear classifier
far from its optimum, and prediction shows it whole volumes. Fitting the classifier alone once more, on fixed features,
is common practice for unbalanced classes (Kang et al., Decoupling Representation and Classifier, ICLR 2020).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from nnunet_3dct.formats.clinical import ClinicalTable
from nnunet_3dct.formats.covariate_encoding import CovariateEncoding
from nnunet_3dct.networks.case_layout import COVARIATES
from nnunet_3dct.networks.heads import ClassificationHead
from nnunet_3dct.networks.heads.case import CaseHead
from nnunet_3dct.training.head_choice import CaseTable, Choice, Weights, choose
from nnunet_3dct.training.usual_cases import learn_familiarity

Columns = dict[str, np.ndarray]
T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """What went wrong in one process; the others have to know, since they wait for it."""

    error: str
    trace: str


def attempt(work: Callable[[], T]) -> T | Failure:
    """The result of ``work``, or how it failed."""
    try:
        return work()
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


@dataclass(frozen=True)
class KnownCases:
    """Cases that a head is fitted to.

    Attributes:
        classes: of the training cases; those of unknown class left out.
        groups: patient of a case; cases that are not named are a patient each.
        unseen: cases that the network was not trained on, for the threshold of what is unusual.
        covariates: of the patients, None for none.
    """

    classes: Mapping[str, int]
    groups: Mapping[str, str]
    unseen: tuple[str, ...] = ()
    covariates: ClinicalTable | None = None


@dataclass(frozen=True)
class Refit:
    """What became of a head.

    Attributes:
        message: for the log.
        head: the fitted one; None where the head is left as it was.
    """

    message: str
    head: CaseHead | None = None


def refit(
    head: ClassificationHead,
    columns: Callable[[], Columns],
    known: KnownCases,
    weights: Weights,
    gather: Callable[[Any], list[Any]],
) -> Refit:
    """Fit a head to the training cases in which the network finds the target.

    Nothing that fails here costs the training: the head is then left as it was. Over several processes each takes its
    share of the cases, and all make the same fit.

    Args:
        head: of the network; not changed.
        columns: gives this process's cases, features ``(width,)`` of each.
        known: the cases.
        weights: of the classes, as for :func:`~nnunet_3dct.training.class_loss.class_weights`.
        gather: the value of every process.

    Returns:
        The fitted head and what was done.
    """
    shares = gather(attempt(columns))
    failed = next((share for share in shares if isinstance(share, Failure)), None)
    outcome: Refit | Failure
    if failed is not None:
        outcome = failed
    else:
        features = {case: row for share in shares for case, row in share.items()}
        outcome = attempt(lambda: _refit(head, features, known, weights))
    if isinstance(outcome, Failure):
        return Refit(
            f"WARNING: fitting the class head to whole volumes failed, it is left as trained on patches. "
            f"{outcome.error}\n{outcome.trace}"
        )
    return outcome


def _refit(head: ClassificationHead, features: Columns, known: KnownCases, weights: Weights) -> Refit:
    if not isinstance(head, CaseHead):
        raise TypeError(f"expected a CaseHead, found {type(head).__name__}")
    fit = fit_case_head(head, features, known, weights)
    if fit.fitted is None:
        return Refit(
            f"Class head left as trained on patches: fitting it to whole volumes needs two cases of two classes "
            f"in which the network finds the target, found {fit.counts} in each class."
        )
    fitted, choice = fit.fitted
    picked = "; ".join(map(str, choice.candidates))
    return Refit(
        f"Class head fitted to whole volumes of {len(fit.table.cases)} training cases ({fit.counts} in each class), "
        f"the average of what did best in a cross-validation among them: {picked}.",
        fitted,
    )


@dataclass(frozen=True)
class CaseFit:
    """A fit to the training cases.

    Attributes:
        features: of all cases, with their covariates.
        table: of the training cases in which the network finds the target.
        counts: of those in each class.
        fitted: the head and what was chosen for it; None where there are not two cases of two classes.
    """

    features: Columns
    table: CaseTable
    counts: list[int]
    fitted: tuple[CaseHead, Choice] | None


def fit_case_head(head: CaseHead, features: Columns, known: KnownCases, weights: Weights) -> CaseFit:
    """Choose and fit a classifier, with the covariates of the cases.

    Args:
        head: of the network; not changed.
        features: of all cases, by that head; unseen ones may be missing.
        known: the cases.
        weights: of the classes.
    """
    head, features = with_covariates(head, features, known)
    table = case_table(features, known, head)
    counts = np.bincount(table.classes, minlength=head.num_classes).tolist()
    if sum(count > 1 for count in counts) < 2:
        return CaseFit(features, table, counts, None)
    choice = choose(table, head.layout, head.num_classes, weights=weights)
    unseen = np.array([features[case] for case in known.unseen if case in features])
    fitted = fitted_head(head, choice, table, unseen.reshape(-1, table.columns.shape[1]))
    return CaseFit(features, table, counts, (fitted, choice))


def with_covariates(head: CaseHead, features: Columns, known: KnownCases) -> tuple[CaseHead, Columns]:
    """A head that takes the covariates of the cases, with their columns; those that it took before are dropped.

    Args:
        head: of the network; not changed.
        features: of all cases, by that head.
        known: the cases; covariates are encoded by those of known class.
    """
    before = len(head.layout.blocks.get(COVARIATES, ()))
    if known.covariates is None and not before:
        return head, features
    encoding = None if known.covariates is None else CovariateEncoding.fit(known.covariates, sorted(known.classes))
    changed = head_like(head, covariates=None if encoding is None else encoding.to_dict(), known_cases=())
    rows = {case: row[: len(row) - before] for case, row in features.items()}
    if known.covariates is not None:
        rows = {
            case: np.concatenate([row, changed.encode_covariates(known.covariates.of(case))])
            for case, row in rows.items()
        }
    return changed, rows


def head_like(head: CaseHead, **options: Any) -> CaseHead:
    """A new head of the same network and encoder with other options, on the same device."""
    new = CaseHead(head.spec, head.num_classes, **{**head.options, **options})
    if new.encoder is not None and head.encoder is not None:
        new.encoder.load_state_dict(head.encoder.state_dict())
    return new.to(head.classifier.weight.device)


def case_table(features: Columns, known: KnownCases, head: CaseHead) -> CaseTable:
    """The cases of known class in which the network finds the target, sorted.

    Args:
        features: of all cases.
        known: the cases.
        head: whose columns they are.
    """
    cases = [
        case
        for case in sorted(known.classes)
        if case in features and bool(head.found_target(torch.from_numpy(features[case][None]))[0])
    ]
    return CaseTable(
        tuple(cases),
        np.stack([features[case] for case in cases]) if cases else np.zeros((0, 0)),
        np.array([known.classes[case] for case in cases], dtype=int),
        tuple(known.groups.get(case, f"case {case}") for case in cases),
    )


def fitted_head(head: CaseHead, choice: Choice, table: CaseTable, unseen: np.ndarray) -> CaseHead:
    """A head of what was chosen that knows which cases are usual, in evaluation mode.

    Args:
        head: of the same layout; not changed.
        choice: scaling and linear model.
        table: the cases that it was fitted to.
        unseen: columns ``(M, width)`` of cases that the network was not trained on; none is fine.
    """
    known = learn_familiarity(head, table.columns, unseen)
    head = head_like(head, known_cases=[len(familiarity.axes) for familiarity in known])
    spread = choice.scaling.spread
    with torch.no_grad():
        head.norm.mean.copy_(torch.from_numpy(choice.scaling.mean))
        head.norm.square.copy_(torch.from_numpy(choice.scaling.mean**2 + spread**2))
        head.classifier.weight.copy_(torch.from_numpy(choice.model.weight / head.norm.scale))
        head.classifier.bias.copy_(torch.from_numpy(choice.model.bias))
    for module, familiarity in zip(head.familiarity, known, strict=True):
        module.load_state_dict(familiarity.state_dict())
    return head.eval()
