"""A last step of training: the lesion head fitted to whole volumes of the training cases.

Patches are what a network needs to learn features, but few steps of gradient descent on them leave a linear classifier
far from its optimum, and prediction shows it whole volumes. Fitting the classifier alone once more, on fixed features,
is common practice for unbalanced classes (Kang et al., Decoupling Representation and Classifier, ICLR 2020). Every
volume is shown in all the ways in which training mirrors it: eight views of a case say more than one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

from nnunet_3dct.formats.class_labels import UNKNOWN
from nnunet_3dct.inference.recording import PooledFeatures, recording_predictor
from nnunet_3dct.inference.windows import mirrored_passes
from nnunet_3dct.networks.heads.lesion import LEAST_TARGET, LesionHead

if TYPE_CHECKING:
    from nnunet_3dct.training.trainer import MultiTaskTrainer

    _Base: type = MultiTaskTrainer
else:
    _Base = object

STRENGTHS = np.logspace(-4, 1, 11)
ABSENT = -20.0  # logit of a class without a training case


class HeadRefit(_Base):
    """Mixin of a trainer with a :class:`LesionHead`; the fit precedes the final checkpoint.

    Over several processes each takes its share of the cases, and all make the same fit.
    """

    def on_train_end(self) -> None:
        self.refit_head()
        super().on_train_end()

    def refit_head(self) -> None:
        """Fit the head to the training cases of known class in which the network finds the target."""
        found = {case: pooled for rank in self._gather(self._pooled_training_cases()) for case, pooled in rank.items()}
        cases = sorted(case for case, views in found.items() if views[0, -1] > LEAST_TARGET)
        classes = np.array([self.class_labels.by_case[case] for case in cases], dtype=int)
        counts = np.bincount(classes, minlength=self.num_classes)
        if (counts > 1).sum() < 2:
            self.print_to_log_file(
                f"Class head left as trained on patches: fitting it to whole volumes needs two cases of two classes "
                f"in which the network finds the target, found {counts.tolist()} in each class."
            )
            return
        weights = None if self.class_weight is None else self.class_weight.tolist()
        strength = fit_head(self.multitask_network.cls_head, np.stack([found[c] for c in cases]), classes, weights)
        self.print_to_log_file(
            f"Class head fitted to whole volumes of {len(cases)} training cases ({counts.tolist()} in each class): "
            f"logistic regression, C = {strength:.2g} by cross-validation among them."
        )

    def _pooled_training_cases(self) -> dict[str, np.ndarray]:
        """Of each case one row for each way to mirror it, the plain one first."""
        training, _ = self.do_split()
        keys = sorted(case for case in set(map(str, training)) if self.class_labels.by_case[case] != UNKNOWN)
        dataset = self.whole_volumes(keys)
        self.set_deep_supervision_enabled(False)
        self.network.eval()
        network = PooledFeatures(self.multitask_network, self.target_labels)
        predictor = recording_predictor(
            network, self.plans_manager, self.configuration_manager, self.dataset_json, self.device
        )
        pooled: dict[str, np.ndarray] = {}
        mirrors = mirrored_passes(self.inference_allowed_mirroring_axes, "full")
        for case in dataset.identifiers:
            image, views = self._load_image(dataset, case), []
            for axes in mirrors:
                predictor.predict_sliding_window_return_logits(image.flip([axis + 1 for axis in axes]))
                views.append(network.result()[0])
            pooled[case] = np.stack(views)
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        return pooled


def fit_head(head: LesionHead, pooled: np.ndarray, classes: np.ndarray, class_weight: Iterable[float] | None) -> float:
    """Set the head's statistics and linear layer to a logistic regression of ``classes`` on ``pooled``.

    Args:
        head: changed in place.
        pooled: features of whole volumes in several views ``(N, views, width)``. Views that show no target do not
            count; each case counts as much as another.
        classes: ``(N,)``, at least two different ones.
        class_weight: one factor for each class.

    Returns:
        The inverse strength C of the regularisation, from a cross-validation by log loss; 0.01 where a class has a
        single case.
    """
    device = head.classifier.weight.device
    shows = pooled[..., -1] > LEAST_TARGET
    case, _ = np.nonzero(shows)
    views = torch.from_numpy(pooled[shows])
    head.norm.set_statistics(views)
    head.eval()
    with torch.no_grad():
        x = head.norm(views.to(device)).double().cpu().numpy() / head.norm.scale
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
    weight, bias = torch.zeros_like(head.classifier.weight), torch.full_like(head.classifier.bias, ABSENT)
    weight[present] = torch.from_numpy(coefficients / head.norm.scale).to(weight)
    bias[present] = torch.from_numpy(intercepts).to(bias)
    with torch.no_grad():
        head.classifier.weight.copy_(weight)
        head.classifier.bias.copy_(bias)
    return float(model.C)
