"""The best of several candidates is too good to be true; what is left after the correction is true."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from nnunet_3dct.evaluation.selection.candidates import Candidate
from nnunet_3dct.evaluation.selection.comparison import Compared, compare_candidates
from nnunet_3dct.evaluation.selection.correction import corrected_score, out_of_bag_counts, share_left_out
from nnunet_3dct.evaluation.selection.scores import ScoredCases

SIZES = [9, 15, 12]  # 36 cases in three classes
TRUTH = np.repeat([0, 1, 2], SIZES)


def compare(predicted: np.ndarray, units: np.ndarray | None = None, truth: np.ndarray = TRUTH) -> Compared:
    """Candidates of equal Dice, 300 resamples."""
    number, size = predicted.shape
    cases = ScoredCases(
        truth,
        predicted,
        [None] * number,
        np.full((number, size, 1), 0.8),
        3,
        np.arange(size) if units is None else units,
    )
    names = [str(k) for k in range(number)]
    candidates = [Candidate(name, (k,), predicted[k], None) for k, name in enumerate(names)]
    return compare_candidates(candidates, names, cases, [None] * number, "f1_macro", 0, 300, 0)


def draw(accuracies: list[float], rng: np.random.Generator, truth: np.ndarray = TRUTH) -> np.ndarray:
    """Classes predicted by independent candidates, each right with its accuracy, else wrong at random."""
    wrong = (truth + rng.integers(1, 3, (len(accuracies), len(truth)))) % 3
    return np.where(rng.random(wrong.shape) < np.array(accuracies)[:, None], truth, wrong)


def true_macro_f1(accuracy: float) -> float:
    """On so many cases in these classes that chance plays no part."""
    many = np.repeat([0, 1, 2], np.array(SIZES) * 4000)
    return float(f1_score(many, draw([accuracy], np.random.default_rng(1), many)[0], average="macro"))


@pytest.fixture(scope="module")
def equally_good() -> dict[str, np.ndarray]:
    """Ten equally good candidates on 36 cases, a hundred times."""
    rng = np.random.default_rng(0)
    found = [compare(draw([0.56] * 10, rng)) for _ in range(100)]
    return {
        "raw": np.array([one["best"]["raw"]["value"] for one in found]),
        "corrected": np.array([one["best"]["corrected"]["value"] for one in found]),
        "intervals": np.array([one["best"]["corrected"]["interval"] for one in found]),
        "raw_intervals": np.array([one["best"]["raw"]["interval"] for one in found]),
        "selected": np.array([one["selected"]["corrected"]["value"] for one in found]),
    }


def test_raw_score_of_the_best_of_ten_is_inflated_by_an_eighth(equally_good):
    assert equally_good["raw"].mean() - true_macro_f1(0.56) == pytest.approx(0.12, abs=0.02)


@pytest.mark.parametrize("which", ["corrected", "selected"])
def test_corrected_score_is_not(equally_good, which):
    assert equally_good[which].mean() == pytest.approx(true_macro_f1(0.56), abs=0.02)


def test_corrected_interval_covers_the_truth_and_the_raw_one_does_not(equally_good):
    truth = true_macro_f1(0.56)
    low, high = equally_good["intervals"].T
    assert np.mean((low <= truth) & (truth <= high)) >= 0.95
    low, high = equally_good["raw_intervals"].T
    assert np.mean((low <= truth) & (truth <= high)) < 0.85


def test_corrected_interval_is_hardly_wider_than_that_of_a_single_candidate(equally_good):
    width = np.diff(equally_good["intervals"]).mean()
    assert np.diff(equally_good["raw_intervals"]).mean() < width < 0.42


def test_candidate_that_is_truly_better_keeps_its_score():
    """Nothing is taken off where the choice is plain."""
    rng = np.random.default_rng(5)
    found = [compare(draw([0.9, *[0.4] * 9], rng)) for _ in range(40)]
    raw, corrected = (np.mean([one["best"][key]["value"] for one in found]) for key in ("raw", "corrected"))
    assert raw == pytest.approx(true_macro_f1(0.9), abs=0.02)
    assert corrected == pytest.approx(raw, abs=0.01)


def test_a_single_candidate_needs_no_correction():
    (predicted,) = draw([0.6], np.random.default_rng(2))
    best = compare(predicted[None])["best"]
    assert best["corrected"] == best["raw"] and best["optimism"] == 0


def test_copies_of_one_candidate_need_none_either():
    predicted = np.repeat(draw([0.6], np.random.default_rng(2)), 5, axis=0)
    best = compare(predicted)["best"]
    assert best["corrected"]["value"] == pytest.approx(best["raw"]["value"], abs=1e-9)
    low, high = np.array(best["corrected"]["interval"]) - best["raw"]["interval"]
    assert abs(low) < 0.05 and abs(high) < 0.05


def test_interval_is_wider_where_cases_come_in_patients():
    rng = np.random.default_rng(4)
    truth, units = np.repeat(TRUTH, 4), np.repeat(np.arange(36), 4)
    predicted = np.repeat(draw([0.56] * 10, rng), 4, axis=1)  # all cases of a patient alike
    widths = [
        np.diff(one["best"]["corrected"]["interval"])[0]
        for one in (compare(predicted, units, truth), compare(predicted, None, truth))
    ]
    assert widths[0] > 1.5 * widths[1]


def test_cases_that_no_resample_leaves_out_give_no_correction():
    found = compare(np.array([[0, 1, 2], [0, 1, 1]]), truth=np.array([0, 1, 2]))  # each class has one case
    assert found["best"]["raw"]["value"] == 1
    assert found["best"]["corrected"] == {"value": None, "interval": None} and found["best"]["optimism"] is None


def test_correction_is_the_out_of_bag_score_of_the_chosen_without_the_shift_of_fewer_cases():
    left_out = np.array([[0.5, 0.3], [0.7, 0.4], [0.6, 0.8], [np.nan, np.nan]])
    found = corrected_score(np.array([0, 1, 0, 1]), left_out, np.array([0.7, 0.5]), 0.4)
    shift = (2 * (0.6 - 0.7) + (0.5 - 0.5)) / 3
    assert found["value"] == pytest.approx(0.5 - shift)


def test_out_of_bag_cases_count_once_and_their_share_is_that_of_patients():
    counts = np.array([[0.0, 0, 2, 1], [0, 0, 1, 0]])
    assert out_of_bag_counts(counts).tolist() == [[1, 1, 0, 0], [1, 1, 0, 1]]
    assert share_left_out(counts, np.array([0, 0, 1, 2])) == pytest.approx((1 / 3 + 2 / 3) / 2)
