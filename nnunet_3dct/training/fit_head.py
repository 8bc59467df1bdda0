"""A last step of training: the lesion head fitted to whole volumes of the training cases.

Patches are what a network needs to learn features, but few steps of gradient descent on them leave a linear classifier
far from its optimum, and prediction shows it whole volumes. Fitting the classifier alone once more, on fixed features,
is common practice for unbalanced classes (Kang et al., Decoupling Representation and Classifier, ICLR 2020). Every
volume is shown in all the ways in which training mirrors it: eight views of a case say more than one.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

from nnunet_3dct.networks.heads import ClassificationHead
from nnunet_3dct.networks.heads.lesion import LEAST_TARGET, LesionHead
from nnunet_3dct.training.class_loss import class_weights

STRENGTHS = np.logspace(-4, 1, 11)
ABSENT = -20.0  # logit of a class without a training case

Views = dict[str, np.ndarray]
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


def refit(
    head: ClassificationHead,
    pool: Callable[[], Views],
    classes: Mapping[str, int],
    weights: str | Sequence[float],
    gather: Callable[[Any], list[Any]],
) -> str:
    """Fit a head to the training cases in which the network finds the target.

    Nothing that fails here costs the training: the head is then left as it was. Over several processes each takes its
    share of the cases, and all make the same fit.

    Args:
        head: changed in place.
        pool: gives this process's cases, views ``(N, width)`` of each.
        classes: of the training cases; those of unknown class left out.
        weights: of the classes, as for :func:`~nnunet_3dct.training.class_loss.class_weights`.
        gather: the value of every process.

    Returns:
        What was done, for the log.
    """
    shares = gather(attempt(pool))
    outcome: str | Failure
    failed = next((share for share in shares if isinstance(share, Failure)), None)
    if failed is not None:
        outcome = failed
    else:
        pooled = {case: views for share in shares for case, views in share.items()}
        outcome = attempt(lambda: _fit(pooled, head, classes, weights))
    if isinstance(outcome, Failure):
        return (
            f"WARNING: fitting the class head to whole volumes failed, it is left as trained on patches. "
            f"{outcome.error}\n{outcome.trace}"
        )
    return outcome


def _fit(pooled: Views, head: ClassificationHead, classes: Mapping[str, int], weights: str | Sequence[float]) -> str:
    if not isinstance(head, LesionHead):
        raise TypeError(f"expected a LesionHead, found {type(head).__name__}")
    cases = sorted(case for case, views in pooled.items() if views[0, -1] > LEAST_TARGET)
    truth = np.array([classes[case] for case in cases], dtype=int)
    counts = np.bincount(truth, minlength=head.num_classes).tolist()
    if sum(count > 1 for count in counts) < 2:
        return (
            f"Class head left as trained on patches: fitting it to whole volumes needs two cases of two classes "
            f"in which the network finds the target, found {counts} in each class."
        )
    of_fold = np.bincount([*classes.values()], minlength=head.num_classes).tolist()
    strength = fit_head(head, np.stack([pooled[case] for case in cases]), truth, class_weights(weights, of_fold))
    return (
        f"Class head fitted to whole volumes of {len(cases)} training cases ({counts} in each class): "
        f"logistic regression, C = {strength:.2g} by cross-validation among them."
    )


def fit_head(head: LesionHead, pooled: np.ndarray, classes: np.ndarray, class_weight: Iterable[float] | None) -> float:
    """Set the head's statistics and linear layer to a logistic regression of ``classes`` on ``pooled``.

    Args:
        head: changed in place and set to evaluation, once the fit is there. The fit itself runs on the CPU in
            float64, which not every device has.
        pooled: features of whole volumes in several views ``(N, views, width)``. Views that show no target do not
            count; each case counts as much as another.
        classes: ``(N,)``, at least two different ones.
        class_weight: one factor for each class.

    Returns:
        The inverse strength C of the regularisation, from a cross-validation by log loss; 0.01 where a class has a
        single case.
    """
    fitted = copy.deepcopy(head).cpu().eval()
    shows = pooled[..., -1] > LEAST_TARGET
    case, _ = np.nonzero(shows)
    views = torch.from_numpy(pooled[shows])
    fitted.norm.set_statistics(views)
    with torch.no_grad():
        x = fitted.norm(views).double().numpy() / fitted.norm.scale
    present = np.unique(classes)
    y, share = classes[case], (1 / shows.sum(1))[case]
    weights = None if class_weight is None else {k: w for k, w in enumerate(class_weight) if k in present}
    model: Any = LogisticRegression(C=0.01, class_weight=weights, max_iter=5000)
    folds = min(5, int(np.bincount(classes)[present].min()))
    if folds > 1:
        inner = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(x, y, case))
        search = GridSearchCV(model, {"C": STRENGTHS}, scoring="neg_log_loss", cv=inner)
        model = search.fit(x, y, sample_weight=share).best_estimator_
    else:
        model = model.fit(x, y, sample_weight=share)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn gives one row, for the second class against the first
        coefficients, intercepts = np.concatenate((-coefficients, coefficients)) / 2, np.r_[-intercepts, intercepts] / 2
    with torch.no_grad():
        fitted.classifier.weight.zero_()
        fitted.classifier.bias.fill_(ABSENT)
        fitted.classifier.weight[present] = torch.from_numpy(coefficients / fitted.norm.scale).float()
        fitted.classifier.bias[present] = torch.from_numpy(intercepts).float()
    head.load_state_dict(fitted.state_dict())
    head.eval()
    return float(model.C)
