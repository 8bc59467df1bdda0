"""Temperature scaling of logits, and the parts of the cases for fitting on some and measuring on others."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold

LOWEST, HIGHEST = 0.05, 20.0
PARTS = 5


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature T, 0.05 to 20, for which ``softmax(logits / T)`` has the least log loss.

    Args:
        logits: ``(N, C)``.
        truth: classes ``(N,)``.
    """
    best = minimize_scalar(
        lambda log_t: log_loss(logits / np.exp(log_t), truth), bounds=np.log([LOWEST, HIGHEST]), method="bounded"
    )
    return float(np.exp(best.x))


def log_loss(logits: np.ndarray, truth: np.ndarray) -> float:
    """Mean of minus the logarithm of the true class's probability."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(truth)), truth].mean())


def held_out_parts(truth: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Part ``(N,)`` of each case for cross-fitting: its fold, or with a single fold one of five stratified parts.

    All cases are in one part where even the rarest class has but one case.
    """
    if len(np.unique(folds)) > 1:
        return folds
    parts = np.zeros(len(truth), int)
    number = min(PARTS, int(np.unique(truth, return_counts=True)[1].min()))
    if number > 1:
        splitter = StratifiedKFold(number, shuffle=True, random_state=0)
        for part, (_, held_out) in enumerate(splitter.split(truth, truth)):
            parts[held_out] = part
    return parts
