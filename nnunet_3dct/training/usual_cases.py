"""What the training cases of a head look like, and how far a case of their kind may lie from them."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from nnunet_3dct.networks.case_layout import COVARIATES, IMAGE_BLOCKS, IMAGE_CONTRAST, IMAGE_SHARPNESS, CaseLayout
from nnunet_3dct.networks.familiarity import Familiarity, fit_familiarity
from nnunet_3dct.networks.heads.case import CaseHead

PARTS = 10
UNUSUAL = 0.02  # share of cases of the same kind that may be called unusual
OUTLIERS = 0.01  # the same by a normal distribution, for what a few cases cannot tell
LEAST_DIFFERENCE = (
    0.02  # of a measurement of the image, in normalised intensities or as a logarithm, that means nothing
)


def learn_familiarity(head: CaseHead, training: np.ndarray, unseen: np.ndarray) -> list[Familiarity]:
    """What the training cases look like, and how far cases of the same kind may lie from that.

    Four groups of features each have a distance, since among hundreds of features a few that are far off make little:
    all of them, those of the image as a whole, those of its contrast, those of its sharpness. The distances of training
    cases come from fits to the other training cases; logarithms of them are about normal. Thresholds lie equally many
    standard deviations above the mean of a group: so many that no more than a share ``UNUSUAL`` of these cases would be
    called unusual by any group. No group needs more than its own farthest case, so that an outlier of one does not
    raise the others; and none takes less than a prediction interval for one more case, which is wide where there are
    few cases.

    Args:
        head: whose columns they are.
        training: columns ``(N, width)`` of the cases that the head is fitted to.
        unseen: columns ``(M, width)`` of cases that the network was not trained on; they count among those of which few
            may be called unusual. Those without a target are left out.
    """
    least = np.zeros(training.shape[1])
    least[head.layout.columns([block for block in IMAGE_BLOCKS if block in head.layout.blocks])] = LEAST_DIFFERENCE
    masks = [np.isin(np.arange(training.shape[1]), columns) for columns in _groups(head.layout)]
    known = [fit_familiarity(training, mask, least) for mask in masks]
    if len(training) < 3:
        return known
    if len(unseen):
        unseen = unseen[head.found_target(torch.from_numpy(unseen)).numpy()]
    own = np.stack([_left_out(training, mask, least) for mask in masks])
    new = np.stack([_log_distance(one, unseen) for one in known])
    center, spread = own.mean(1), own.std(1, ddof=1) + 1e-6
    heights = (np.concatenate([own, new], axis=1) - center[:, None]) / spread[:, None]
    height = np.minimum(_height_of_few(heights.max(0)), heights.max(1))
    height = np.maximum(height, _height_of_one_more(len(training), len(masks)))
    for familiarity, threshold in zip(known, np.exp(center + height * spread), strict=True):
        familiarity.threshold.fill_(float(threshold))
    return known


def _groups(layout: CaseLayout) -> list[list[int]]:
    every = [block for block in layout.blocks if block != COVARIATES]
    groups = [every, list(IMAGE_BLOCKS), [IMAGE_CONTRAST], [IMAGE_SHARPNESS]]
    found = [layout.columns([block for block in group if block in layout.blocks]) for group in groups]
    return [columns for columns in found if columns]


def _left_out(training: np.ndarray, used: np.ndarray, least: np.ndarray) -> np.ndarray:
    parts = np.arange(len(training)) % min(PARTS, len(training))
    found = np.zeros(len(training))
    for part in np.unique(parts):
        others = fit_familiarity(training[parts != part], used, least)
        found[parts == part] = _log_distance(others, training[parts == part])
    return found


def _log_distance(familiarity: Familiarity, columns: np.ndarray) -> np.ndarray:
    if not len(columns):
        return np.zeros(0)
    return np.log(familiarity.distance(torch.from_numpy(columns)).double().numpy() + 1e-6)


def _height_of_few(heights: np.ndarray) -> float:
    """Height above which a share ``UNUSUAL`` of cases lies, one more case counted in (split conformal prediction)."""
    above = int((len(heights) + 1) * UNUSUAL)
    return float(np.sort(heights)[len(heights) - 1 - above])


def _height_of_one_more(cases: int, groups: int) -> float:
    """Upper bound of a normal value after so many others, the share of those above it divided among the groups."""
    return float(stats.t.ppf(1 - OUTLIERS / groups, cases - 1) * np.sqrt(1 + 1 / cases))
