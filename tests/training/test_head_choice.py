"""The choice of features and classifier among the training cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from nnunet_3dct.inference.measurements import measurement_names
from nnunet_3dct.networks.case_layout import COVARIATES, CaseLayout
from nnunet_3dct.networks.features import FeatureSpec
from nnunet_3dct.training import head_choice
from nnunet_3dct.training.head_choice import CaseTable, candidates, choose, nested
from nnunet_3dct.training.linear_classifiers import ABSENT, LDA, LENGTH, LOGISTIC, Candidate, Linear, Scaling

SPEC = FeatureSpec((4, 6), (4,), 3)
LAYOUT = CaseLayout.of(SPEC, measurement_names(1))


def table(n: int = 60, told_by: str | None = "profile", seed: int = 0, layout: CaseLayout = LAYOUT) -> CaseTable:
    """Three classes; one block tells them, or none."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 3
    columns = rng.normal(size=(n, len(layout.names))) * 3 + 10
    if told_by is not None:
        first, second = layout.blocks[told_by][:2]
        columns[:, first] += 12 * (classes == 1)
        columns[:, second] += 12 * (classes == 2)
    return CaseTable(tuple(f"c{k}" for k in range(n)), columns, classes, tuple(f"p{k}" for k in range(n)))


@pytest.mark.parametrize("block", ["encoder 0", "profile", "shape"])
def test_the_block_that_tells_the_class_is_chosen(block: str) -> None:
    choice = choose(table(told_by=block), LAYOUT, 3)
    assert block in choice.candidates[0].blocks
    new = table(90, block, seed=1)
    assert balanced_accuracy_score(new.classes, choice.logits(new.columns).argmax(1)) > 0.7


def test_covariates_are_offered_where_there_are_some() -> None:
    layout = CaseLayout.of(SPEC, measurement_names(1), ["age", "sex = F"])
    assert any(candidate.blocks == (COVARIATES,) for candidate in candidates(layout))
    choice = choose(table(told_by=COVARIATES, layout=layout), layout, 3)
    assert all(COVARIATES in candidate.blocks for candidate in choice.candidates)


def test_nested_estimate_of_noise_is_chance() -> None:
    noise = table(75, told_by=None)
    probabilities = nested(noise, LAYOUT, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert 0.15 < balanced_accuracy_score(noise.classes, probabilities.argmax(1)) < 0.5


def test_cases_of_a_patient_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(60)
    data = CaseTable(data.cases, data.columns, data.classes, tuple(f"p{k // 4}" for k in range(60)))
    for training, rest in head_choice._split(data, 5, 0):
        assert not {data.groups[k] for k in training} & {data.groups[k] for k in rest}


def test_model_is_the_average_of_what_was_chosen_and_one_linear_layer() -> None:
    data = table()
    choice = choose(data, LAYOUT, 3)
    assert len(choice.candidates) == head_choice.AVERAGED
    assert choice.model.weight.shape == (3, len(LAYOUT.names))
    used = {column for candidate in choice.candidates for column in LAYOUT.columns(candidate.blocks)}
    weighty = set(np.flatnonzero(np.abs(choice.model.weight).sum(0)))
    assert weighty == used


def test_probabilities_are_as_sure_as_held_out_cases_allow() -> None:
    data = table(90, told_by=None)  # nothing to know
    choice = choose(data, LAYOUT, 3)
    new = table(90, told_by=None, seed=3)
    assert softmax(choice.logits(new.columns), axis=1).max(1).mean() < 0.6


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 2]])
@pytest.mark.parametrize("n", [30, 12])
def test_logistic_regression_is_scikit_learns(classes: list[int], n: int) -> None:
    rng = np.random.default_rng(1)
    y = np.resize(classes, n)
    x = rng.normal(size=(n, 20)) + 0.5 * y[:, None]  # more columns than cases for 12
    weights = np.array([1.0, 2.0, 3.0])
    model = Candidate(LOGISTIC, ("any",), 0.1).fit(x, y, range(20), weights)
    scale = LENGTH / np.sqrt(20)
    reference = LogisticRegression(C=0.1, class_weight={k: weights[k] for k in classes}, max_iter=5000).fit(
        x * scale, y
    )
    new = rng.normal(size=(50, 20))
    expected = reference.predict_proba(new * scale)
    np.testing.assert_allclose(softmax(model.logits(new), axis=1)[:, classes], expected, atol=2e-3)
    absent = [k for k in range(3) if k not in classes]
    assert (model.bias[absent] == ABSENT).all()


def test_lda_is_scikit_learns_with_the_priors_of_the_weights() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1, 2], [6, 12, 30])
    x = rng.normal(size=(48, 8)) + 0.5 * y[:, None]
    model = Candidate(LDA, ("any",)).fit(x, y, range(8), np.array([8.0, 4.0, 1.6]))
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[1 / 3] * 3).fit(x, y)
    new = rng.normal(size=(50, 8))
    np.testing.assert_allclose(softmax(model.logits(new), axis=1), reference.predict_proba(new), atol=1e-6)


def test_average_of_models_has_the_average_of_their_logits() -> None:
    rng = np.random.default_rng(0)
    models = [Linear(rng.normal(size=(3, 5)), rng.normal(size=3)) for _ in range(3)]
    x = rng.normal(size=(7, 5))
    np.testing.assert_allclose(Linear.average(models).logits(x), np.mean([m.logits(x) for m in models], axis=0))


def test_missing_values_are_left_out_of_the_scaling_and_count_as_average() -> None:
    columns = np.array([[1.0, 5.0], [3.0, np.nan], [5.0, 7.0]])
    scaling = Scaling.of(columns, 5.0)
    np.testing.assert_allclose(scaling.mean, [3, 6])
    assert scaling(columns)[1].tolist() == [0.0, 0.0]


def test_a_class_with_a_single_case_is_fitted() -> None:
    data = table(31)
    classes = np.where(np.arange(31) == 30, 2, np.arange(31) % 2)
    choice = choose(CaseTable(data.cases, data.columns, classes, data.groups), LAYOUT, 3)
    assert np.isfinite(choice.logits(data.columns)).all()
