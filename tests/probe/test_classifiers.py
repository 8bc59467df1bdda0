"""The probe's classifiers find what is there and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from nnunet_3dct.probe.classifiers import NAMES, fit_and_predict

every_classifier = pytest.mark.parametrize("name", NAMES)


def data(n: int, width: int, signal: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 3)
    x = rng.normal(size=(n, width)) * 10.0 ** rng.integers(-3, 4, width)
    x[:, :3] = rng.normal(size=(n, 3)) + signal * np.eye(3)[y]
    return x, y


@every_classifier
def test_finds_the_class_among_more_features_than_cases(name: str) -> None:
    x, y = data(240, 300, 4.0, 0)
    probs = fit_and_predict(name, x[:120], y[:120], x[120:], 3)
    assert probs.shape == (120, 3)
    np.testing.assert_allclose(probs.sum(1), 1)
    assert accuracy_score(y[120:], probs.argmax(1)) > 0.7


@every_classifier
def test_is_at_chance_where_there_is_nothing_to_find(name: str) -> None:
    x, y = data(400, 50, 0.0, 1)
    assert 0.22 < accuracy_score(y[200:], fit_and_predict(name, x[:200], y[:200], x[200:], 3).argmax(1)) < 0.45


@every_classifier
def test_missing_and_constant_features_do_no_harm(name: str) -> None:
    x, y = data(120, 10, 4.0, 2)
    x[::7, 5] = np.nan
    x[:, 8], x[:, 9] = 3.0, np.nan
    probs = fit_and_predict(name, x[:80], y[:80], x[80:], 3)
    assert np.isfinite(probs).all() and accuracy_score(y[80:], probs.argmax(1)) > 0.7


@every_classifier
def test_class_without_training_case_gets_probability_zero(name: str) -> None:
    x, y = data(60, 5, 3.0, 3)
    probs = fit_and_predict(name, x[y != 1], y[y != 1], x, 4)
    assert probs.shape == (60, 4)
    assert not probs[:, [1, 3]].any()


@every_classifier
def test_without_any_telling_feature_all_classes_are_equally_probable(name: str) -> None:
    x = np.full((12, 3), [0.0, 2.0, np.nan])
    np.testing.assert_allclose(fit_and_predict(name, x, np.arange(12) % 3, x, 3), 1 / 3)


@every_classifier
def test_one_class_or_one_case_of_a_class_is_no_crash(name: str) -> None:
    x, y = data(12, 4, 3.0, 4)
    assert (fit_and_predict(name, x[y == 2], y[y == 2], x, 3).argmax(1) == 2).all()
    few = np.r_[np.flatnonzero(y == 0)[:1], np.flatnonzero(y == 1)]
    assert np.isfinite(fit_and_predict(name, x[few], y[few], x, 3)).all()
