"""Class metrics on every resample, compared with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from nnunet_3dct.evaluation.bootstrap import draw_counts
from nnunet_3dct.evaluation.class_metrics import class_metrics
from nnunet_3dct.evaluation.resampled_metrics import resampled_metrics
from tests.evaluation.predictions import NAMES, SEED_CONFUSION, expand, probabilities_for


def probabilities_with_ties(predicted: np.ndarray) -> np.ndarray:
    rows = probabilities_for(predicted).round(1) + 1e-3
    return rows / rows.sum(axis=1, keepdims=True)


def test_resampled_metrics_equal_scikit_learn_on_the_same_resample():
    truth, predicted = expand(SEED_CONFUSION)
    rows = probabilities_with_ties(predicted)
    counts = draw_counts(truth, 50, seed=3)
    values = resampled_metrics(counts, truth, predicted, rows)
    for i, count in enumerate(counts.astype(int)):
        drawn = np.repeat(np.arange(len(truth)), count)
        t, p, one_hot = truth[drawn], predicted[drawn], np.eye(3)[truth[drawn]]
        expected = {
            "accuracy": sk.accuracy_score(t, p),
            "balanced_accuracy": sk.balanced_accuracy_score(t, p),
            "cohen_kappa": sk.cohen_kappa_score(t, p),
            "matthews_corrcoef": sk.matthews_corrcoef(t, p),
            "auc_macro": sk.roc_auc_score(t, rows[drawn], multi_class="ovr"),
            "auc_per_class": sk.roc_auc_score(one_hot, rows[drawn], average=None),
            "average_precision_macro": sk.average_precision_score(one_hot, rows[drawn]),
            "average_precision_weighted": sk.average_precision_score(one_hot, rows[drawn], average="weighted"),
            "brier_score": 3 * sk.mean_squared_error(one_hot, rows[drawn]),
            "f1_per_class": sk.f1_score(t, p, average=None, zero_division=0),
            "precision_weighted": sk.precision_score(t, p, average="weighted", zero_division=0),
            "recall_macro": sk.recall_score(t, p, average="macro"),
            "f1_macro": sk.f1_score(t, p, average="macro"),
            "f1_weighted": sk.f1_score(t, p, average="weighted"),
        }
        for name, value in expected.items():
            assert values[name][i] == pytest.approx(value), name


TWO_CLASSES, ONE_CLASS = [[5, 1, 1], [2, 6, 0], [0, 0, 0]], [[3, 0, 2], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("confusion", [SEED_CONFUSION, TWO_CLASSES, ONE_CLASS])
def test_metrics_of_the_unresampled_cases_are_the_point_metrics(confusion):
    truth, predicted = expand(confusion)
    rows = probabilities_with_ties(predicted)
    point = class_metrics(truth, predicted, rows, NAMES)
    found = resampled_metrics(np.ones((1, len(truth))), truth, predicted, rows)
    assert {"auc_macro", "cohen_kappa"} <= set(found) or len(set(truth)) == 1
    for name, values in found.items():
        expected = [np.nan if v is None else v for v in np.atleast_1d(np.array(point[name], dtype=object))]
        assert values[0] == pytest.approx(np.array(expected, dtype=float).squeeze(), nan_ok=True), name
