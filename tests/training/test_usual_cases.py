"""How far a case of the training cases' kind may lie from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_3dct.networks.case_layout import IMAGE_CONTRAST, IMAGE_SHARPNESS
from nnunet_3dct.networks.familiarity import Familiarity
from nnunet_3dct.training.usual_cases import learn_familiarity
from tests.training.test_fit_head import SIZE, case_head

HEAD = case_head(2)
WIDTH = len(HEAD.layout.names)
NONE = np.zeros((0, WIDTH))


def cases(n: int, seed: int = 0) -> np.ndarray:
    """Correlated columns; all show the target."""
    mixing = np.random.default_rng(99).normal(size=(WIDTH, WIDTH)) / 5
    x = np.random.default_rng(seed).normal(size=(n, WIDTH)) @ mixing
    x[:, SIZE] += 100
    return x


def marked(known: list[Familiarity], rows: np.ndarray) -> np.ndarray:
    """Which rows each group calls unusual, ``(groups, N)``."""
    return np.stack([(one.distance(torch.from_numpy(rows)) > one.threshold).numpy() for one in known])


@pytest.mark.parametrize("n", [20, 74, 400])
def test_few_other_cases_of_the_kind_are_unusual(n: int) -> None:
    shares = [marked(learn_familiarity(HEAD, cases(n, seed), NONE), cases(500, 100 + seed)).any(0).mean()
              for seed in range(3)]  # fmt: skip
    assert np.mean(shares) < 0.05


@pytest.mark.parametrize("block", [IMAGE_CONTRAST, IMAGE_SHARPNESS])
def test_a_block_that_is_far_off_is_seen_by_its_own_group_and_not_by_that_of_the_other(block: str) -> None:
    known = learn_familiarity(HEAD, cases(74), NONE)
    odd = cases(50, 7)
    columns = list(HEAD.layout.blocks[block])
    odd[:, columns] += 4 * np.random.default_rng(0).choice([-1, 1], len(columns)) * cases(500).std(0)[columns]
    found = dict(zip(("every", "image", IMAGE_CONTRAST, IMAGE_SHARPNESS), marked(known, odd).mean(1), strict=True))
    assert found.pop(block) > 0.95
    assert min(found[other] for other in (IMAGE_CONTRAST, IMAGE_SHARPNESS) if other in found) < 0.1


def test_outliers_in_one_group_hide_nothing_from_the_others() -> None:
    training = cases(74)
    plain = learn_familiarity(HEAD, training, NONE)
    for row in range(3):  # more than may be called unusual
        training[row, list(HEAD.layout.blocks["encoder 0"])] += 60 * np.random.default_rng(row).choice([-1, 1], 6)
    known = learn_familiarity(HEAD, training, NONE)
    assert known[0].threshold > plain[0].threshold
    for before, after in zip(plain[1:], known[1:], strict=True):
        torch.testing.assert_close(after.threshold, before.threshold, rtol=0.02, atol=0)


def test_unseen_cases_that_lie_farther_raise_the_threshold_but_not_those_without_target() -> None:
    training, unseen = cases(74), 2 * cases(20, 3)
    unseen[:, SIZE] = 100
    alone = learn_familiarity(HEAD, training, NONE)
    known = learn_familiarity(HEAD, training, unseen)
    assert known[0].threshold > alone[0].threshold
    assert marked(known, unseen).any(0).sum() <= 1
    unseen[:, SIZE] = 0
    for one, other in zip(learn_familiarity(HEAD, training, unseen), alone, strict=True):
        torch.testing.assert_close(one.threshold, other.threshold)


def test_a_measurement_of_the_image_that_never_varies_is_compared_but_not_its_last_digits() -> None:
    training = cases(74)
    column = HEAD.layout.names.index("mean of the image")
    training[:, column] = np.random.default_rng(0).normal(0, 1e-6, 74)
    known = learn_familiarity(HEAD, training, NONE)
    other = cases(50, 5)
    other[:, column] = 1e-3
    assert marked(known, other).any(0).mean() < 0.2
    other[:, column] = 1.0
    assert marked(known, other).any(0).all()


@pytest.mark.parametrize("n", [2, 3, 6])
def test_few_training_cases_make_wide_limits(n: int) -> None:
    known = learn_familiarity(HEAD, cases(n), NONE)
    assert all(float(one.threshold) > 0 for one in known)
    assert marked(known, cases(100, 1)).any(0).mean() < (0.35 if n > 2 else 1e-9)
