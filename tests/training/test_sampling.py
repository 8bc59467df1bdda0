from __future__ import annotations

from collections import Counter

import pytest

from nnunet_3dct.training.class_data import balanced_identifiers


def cases(**sizes: int) -> dict[str, int]:
    """``k0=2, k1=3, unknown=1`` -> cases with their classes."""
    return {
        f"{name}_{n}": -1 if name == "unknown" else int(name[1:]) for name, size in sizes.items() for n in range(size)
    }


def share_of_classes(drawn: list[str], classes: dict[str, int]) -> dict[int, float]:
    return {k: count / len(drawn) for k, count in Counter(classes[c] for c in drawn).items()}


@pytest.mark.parametrize("sizes", [(62, 106, 84), (1, 50, 7), (5, 5, 5)])
def test_uniform_draws_see_each_class_equally_often(sizes: tuple[int, ...]) -> None:
    classes = cases(**{f"k{k}": size for k, size in enumerate(sizes)})
    drawn = balanced_identifiers(list(classes), classes)
    assert share_of_classes(drawn, classes) == pytest.approx(dict.fromkeys(range(3), 1 / 3))
    assert set(drawn) == set(classes)


def test_cases_of_one_class_are_seen_nearly_equally_often() -> None:
    classes = cases(k0=7, k1=50)
    counts = Counter(balanced_identifiers(list(classes), classes))
    small = [counts[c] for c, k in classes.items() if k == 0]
    assert max(small) - min(small) <= 1


def test_cases_of_unknown_class_keep_their_share() -> None:
    classes = cases(k0=10, k1=30, unknown=20)
    share = share_of_classes(balanced_identifiers(list(classes), classes), classes)
    assert share == pytest.approx({-1: 1 / 3, 0: 1 / 3, 1: 1 / 3}, abs=1e-3)


def test_unlisted_case_counts_as_unknown() -> None:
    classes = cases(k0=2, k1=2)
    assert "other" in balanced_identifiers([*classes, "other"], classes)


def test_without_any_known_class_nothing_changes() -> None:
    assert balanced_identifiers(["a", "b"], {"a": -1, "b": -1}) == ["a", "b"]


def test_class_that_is_absent_from_the_fold_is_left_out() -> None:
    classes = cases(k0=2, k2=4)
    assert share_of_classes(balanced_identifiers(list(classes), classes), classes) == {0: 0.5, 2: 0.5}
