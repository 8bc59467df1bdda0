"""The plain classifiers of the probe, scikit-learn's."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

NAMES = ("LDA", "logistic regression")
STRENGTHS = np.logspace(-4, 2, 7)


def fit_and_predict(name: str, x: np.ndarray, y: np.ndarray, held_out: np.ndarray, num_classes: int) -> np.ndarray:
    """Fit one of :data:`NAMES` and classify cases it has not seen.

    Missing features take the training mean, constant ones are left out, all are standardised; where nothing is left
    all classes are equally probable. LDA shrinks its
    covariance (Ledoit-Wolf) and takes all classes for equally likely; logistic regression balances them and
    chooses its strength by cross-validation inside the training cases.

    Args:
        name: of the classifier.
        x: features of the training cases ``(N, F)``.
        y: their classes ``(N,)``.
        held_out: features ``(M, F)``.
        num_classes: number of classes; those without a training case get probability 0.

    Returns:
        Probabilities ``(M, num_classes)``.
    """
    classes = np.unique(y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any number
        telling = np.nanstd(x, axis=0) > 1e-12
    if len(classes) == 1 or not telling.any():
        probs = np.full((len(held_out), len(classes)), 1 / len(classes))
    else:
        x, held_out = x[:, telling], held_out[:, telling]
        model = _lda(len(classes)) if name == "LDA" else _logistic(y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probs = model.fit(x, y).predict_proba(held_out)
    full = np.zeros((len(held_out), num_classes))
    full[:, classes] = probs
    return full


def _prepared(classifier: LinearDiscriminantAnalysis | LogisticRegression) -> Pipeline:
    # keep_empty_features: a feature may be missing in all cases of an inner fold
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), classifier)


def _lda(classes: int) -> Pipeline:
    return _prepared(LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(classes, 1 / classes)))


def _logistic(y: np.ndarray) -> Pipeline | GridSearchCV:
    model = _prepared(LogisticRegression(class_weight="balanced", max_iter=2000))
    folds = min(5, int(np.unique(y, return_counts=True)[1].min()))
    if folds < 2:
        return model
    inner = StratifiedKFold(folds, shuffle=True, random_state=0)
    return GridSearchCV(model, {"logisticregression__C": STRENGTHS}, scoring="neg_log_loss", cv=inner)
