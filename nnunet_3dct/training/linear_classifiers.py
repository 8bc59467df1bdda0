"""Linear classifiers of few cases with many features, and averages of them, which are linear too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

LDA, LOGISTIC = "shrinkage LDA", "ridge logistic regression"
LENGTH = 8.0  # root of the expected sum of squares that logistic regression sees, whatever the number of columns
STRENGTHS = (0.01, 0.1)  # inverse strength C of the ridge
ABSENT = -20.0  # logit of a class without a training case
LEAST_SPREAD = 1e-3  # standard deviation below which a column is not spread further


@dataclass(frozen=True)
class Linear:
    """Class logits ``x @ weight.T + bias`` of standardised columns.

    Attributes:
        weight: ``(num_classes, width)``.
        bias: ``(num_classes,)``.
    """

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        """``(N, num_classes)`` of standardised columns ``(N, width)``."""
        return x @ self.weight.T + self.bias

    def scaled(self, factor: float) -> Linear:
        """With all logits multiplied."""
        return Linear(self.weight * factor, self.bias * factor)

    @staticmethod
    def average(models: Sequence[Linear]) -> Linear:
        """The model whose logits are the average of the others'."""
        return Linear(np.mean([m.weight for m in models], axis=0), np.mean([m.bias for m in models], axis=0))


@dataclass(frozen=True)
class Candidate:
    """A classifier on some blocks of columns.

    Attributes:
        classifier: ``LDA`` or ``LOGISTIC``.
        blocks: names, see :class:`~nnunet_3dct.networks.case_layout.CaseLayout`.
        strength: inverse strength C of the ridge; None for LDA, which finds its shrinkage itself (Ledoit-Wolf).
    """

    classifier: str
    blocks: tuple[str, ...]
    strength: float | None = None

    def __str__(self) -> str:
        strength = "" if self.strength is None else f" (C = {self.strength:g})"
        return f"{self.classifier}{strength} on {', '.join(self.blocks)}"

    def fit(self, x: np.ndarray, y: np.ndarray, columns: Sequence[int], weights: np.ndarray) -> Linear:
        """Fit to standardised columns.

        Args:
            x: ``(N, width)``, all columns.
            y: classes ``(N,)``, at least two different ones.
            columns: of the blocks.
            weights: of a case of each class ``(num_classes,)``; a class without a case gets the logit ``ABSENT``.
        """
        present = np.unique(y)
        num_classes = len(weights)
        chosen = np.asarray(columns, dtype=int)
        part = x[:, chosen]
        scale = 1.0
        model: Any
        if self.classifier == LDA:
            priors = np.bincount(y, minlength=num_classes)[present] * weights[present]
            priors = priors / priors.sum()
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=priors).fit(part, y)
        else:
            scale = LENGTH / np.sqrt(len(columns))
            of_class = {int(label): float(weights[label]) for label in present}
            model = LogisticRegression(C=self.strength, class_weight=of_class, max_iter=2000)
            # the ridge knows no directions: of more columns than cases only what the cases span has a weight
            turned = np.linalg.svd(part, full_matrices=False)[2].T if part.shape[1] > len(part) else None
            model.fit((part if turned is None else part @ turned) * scale, y)
            if turned is not None:
                model.coef_ = model.coef_ @ turned.T
        weight, bias = np.asarray(model.coef_) * scale, np.asarray(model.intercept_)
        if len(present) == 2:  # scikit-learn gives one row, for the second class against the first
            weight, bias = np.concatenate((-weight, weight)) / 2, np.r_[-bias, bias] / 2
        full = Linear(np.zeros((num_classes, x.shape[1])), np.full(num_classes, ABSENT))
        full.weight[np.ix_(present, chosen)] = weight - weight.mean(0)
        full.bias[present] = bias - bias.mean()
        return full


@dataclass(frozen=True)
class Scaling:
    """Standardisation by the training cases, with outliers cut off.

    Attributes:
        mean, spread: of each column ``(width,)``.
        limit: standard deviations at which a value is cut off.
    """

    mean: np.ndarray
    spread: np.ndarray
    limit: float

    @classmethod
    def of(cls, columns: np.ndarray, limit: float) -> Scaling:
        """From the columns of the training cases ``(N, width)``; NaN is left out."""
        missing = ~np.isfinite(columns)
        counts = np.maximum((~missing).sum(0), 1)
        filled = np.where(missing, 0.0, columns)
        mean = filled.sum(0) / counts
        variance = np.where(missing, 0.0, (filled - mean) ** 2).sum(0) / counts
        return cls(mean, np.maximum(np.sqrt(variance), LEAST_SPREAD), limit)

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """Standardised ``(N, width)``; 0 where a value is missing."""
        z = (columns - self.mean) / self.spread
        return np.clip(np.where(np.isfinite(z), z, 0.0), -self.limit, self.limit)
