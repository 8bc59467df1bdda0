"""Covariates as a vector: as scikit-learn encodes them, the same after JSON and a checkpoint."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from nnunet_3dct.errors import CheckpointError, SettingsError
from nnunet_3dct.formats import clinical_columns, covariate_encoding
from nnunet_3dct.formats.clinical import ClinicalTable
from nnunet_3dct.formats.covariate_encoding import CovariateEncoding

KINDS = {"age": "number", "sex": "category", "ca19-9": "number", "site": "category"}


def random_table(seed: int, n: int = 40) -> ClinicalTable:
    """A table with numbers and categories, some of them missing or rare."""
    rng = np.random.default_rng(seed)
    rows: dict[str, dict[str, Any]] = {}
    for k in range(n):
        rows[f"case_{k:02d}"] = {
            "age": float(rng.normal(60, 12)),
            "sex": str(rng.choice(["F", "M"])),
            "ca19-9": float(rng.lognormal(3)) if rng.random() < 0.7 else None,
            "site": str(rng.choice(["head", "body", "tail"])) if rng.random() < 0.8 else None,
        }
    rows["case_00"]["site"], rows["case_01"]["site"] = "uncinate", "neck"
    return ClinicalTable(KINDS, rows, Path("clinical.csv"))  # type: ignore[arg-type]


def column(table: ClinicalTable, name: str, cases: list[str]) -> np.ndarray:
    return np.array([[table.by_case[case][name]] for case in cases], dtype=object)


@pytest.mark.parametrize("seed", range(5))
def test_vectors_are_those_of_scikit_learn(seed: int) -> None:
    table = random_table(seed)
    cases = sorted(table.by_case)
    training, others = cases[:25], cases[25:]
    encoding = CovariateEncoding.fit(table, training)
    found = np.stack([encoding.encode(table.of(case)) for case in others])
    expected = []
    for name in KINDS:
        train, other = column(table, name, training), column(table, name, others)
        if KINDS[name] == "number":
            reference = make_pipeline(StandardScaler(), SimpleImputer(strategy="mean", add_indicator=True))
            expected.append(reference.fit(train.astype(float)).transform(other.astype(float)))
            continue
        reference = OneHotEncoder(min_frequency=2, handle_unknown="ignore", sparse_output=False)
        stated = np.array([value[0] is not None for value in other])
        block = np.zeros((len(other), 0))
        reference.fit(train[[value[0] is not None for value in train]].astype(str))
        block = np.zeros((len(other), len(reference.get_feature_names_out())))
        block[stated] = reference.transform(other[stated].astype(str))
        expected.append(block)
    np.testing.assert_allclose(found, np.hstack(expected), atol=1e-12)
    assert found.shape == (len(others), encoding.width) and len(encoding.names) == encoding.width
    assert np.abs(found).max() > 0.5


def test_training_vectors_have_mean_zero_and_spread_one() -> None:
    table = random_table(3)
    encoding = CovariateEncoding.fit(table, table.by_case)
    age = np.array([encoding.encode(table.of(case))[0] for case in table.by_case])
    assert age.mean() == pytest.approx(0, abs=1e-12) and age.std() == pytest.approx(1)


def test_names_tell_what_each_number_is() -> None:
    table = random_table(0)
    assert CovariateEncoding.fit(table, table.by_case).names == [
        "age",
        "sex = F",
        "sex = M",
        "ca19-9",
        "ca19-9 missing",
        "site = body",
        "site = head",
        "site = tail",
        "site = other",
    ]


def test_missing_is_the_mean_and_flagged_only_where_training_cases_miss_it() -> None:
    encoding = CovariateEncoding.fit(random_table(0), random_table(0).by_case)
    found = dict(zip(encoding.names, encoding.encode(None), strict=True))
    assert found.pop("ca19-9 missing") == 1
    assert set(found.values()) == {0.0} and "age missing" not in found
    assert encoding.missing(None) == list(KINDS)
    assert encoding.missing({"age": 60.0, "sex": "F", "ca19-9": None}) == ["ca19-9", "site"]
    assert encoding.remarks(None) == []


def test_rare_categories_share_one_number_and_unknown_ones_are_missing_with_a_remark() -> None:
    encoding = CovariateEncoding.fit(random_table(0), random_table(0).by_case)
    for value in ("neck", "uncinate", "NECK"):
        found = dict(zip(encoding.names, encoding.encode({"site": value}), strict=True))
        assert found["site = other"] == 1 and found["site = head"] == 0
        assert encoding.remarks({"site": value}) == []
    values: dict[str, Any] = {"sex": "divers", "site": "Head"}
    found = dict(zip(encoding.names, encoding.encode(values), strict=True))
    assert (found["sex = F"], found["sex = M"], found["site = head"]) == (0, 0, 1)
    assert encoding.remarks(values) == ["sex = divers is in no training case (known: F, M); taken as missing"]


def test_number_far_outside_is_kept_and_remarked_on() -> None:
    rows: dict[str, dict[str, Any]] = {str(n): {"age": 40.0 + 10 * n} for n in range(5)}
    encoding = CovariateEncoding.fit(ClinicalTable({"age": "number"}, rows, Path("c.csv")), rows)
    for age, far in ((60, False), (31, False), (89, False), (29, True), (91, True), (670, True)):
        assert encoding.encode({"age": float(age)})[0] == pytest.approx((age - 60) / np.std([40, 50, 60, 70, 80]))
        assert bool(encoding.remarks({"age": float(age)})) is far
    assert encoding.remarks({"age": 670.0}) == ["age = 670 lies far outside 40 to 80 of the training cases"]


def test_columns_that_a_fold_lacks_or_that_never_vary_stay_finite() -> None:
    rows: dict[str, dict[str, Any]] = {str(n): {"a": None, "b": None, "c": 3.3, "d": "x"} for n in range(3)}
    kinds: dict[str, Any] = {"a": "number", "b": "category", "c": "number", "d": "category"}
    encoding = CovariateEncoding.fit(ClinicalTable(kinds, rows, Path("c.csv")), rows)
    assert encoding.names == ["a", "a missing", "c", "d = x"]
    assert encoding.encode({"a": 2.0, "b": "y", "c": 3.3, "d": "x"}).tolist() == [2.0, 0.0, 0.0, 1.0]
    assert encoding.encode(rows["0"]).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_case_without_a_row_counts_as_missing_in_the_fit() -> None:
    table = random_table(0)
    assert "age missing" not in CovariateEncoding.fit(table, table.by_case).names
    assert "age missing" in CovariateEncoding.fit(table, [*table.by_case, "no row"]).names


@pytest.mark.parametrize("seed", range(5))
def test_json_and_a_strictly_read_checkpoint_change_nothing(seed: int, tmp_path: Path) -> None:
    table = random_table(seed)
    encoding = CovariateEncoding.fit(table, table.by_case)
    torch.save({"options": {"covariates": encoding.to_dict()}}, tmp_path / "c.pth")
    loaded = torch.load(tmp_path / "c.pth", weights_only=True)["options"]["covariates"]
    for content in (loaded, json.loads(json.dumps(encoding.to_dict(), allow_nan=False))):
        again = CovariateEncoding.from_dict(content)
        assert again == encoding and again.to_dict() == encoding.to_dict() and again.kinds == KINDS
        for case in [*table.by_case, "no row"]:
            np.testing.assert_array_equal(again.encode(table.of(case)), encoding.encode(table.of(case)))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"columns": 3},
        {"columns": [{"kind": "date", "name": "x"}]},
        {"columns": [{"kind": "number"}]},
        {"columns": [{"kind": "category", "name": "x"}]},
    ],
)
def test_damaged_encoding_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="expected its covariates with their means and categories"):
        CovariateEncoding.from_dict(content)


def test_covariates_given_by_hand_are_checked() -> None:
    encoding = CovariateEncoding.fit(random_table(0), random_table(0).by_case)
    given = {"AGE": np.int64(61), "sex": " F ", "ca19-9": float("nan"), "site": None}
    assert encoding.accept(given) == {"age": 61.0, "sex": "F", "ca19-9": None, "site": None}
    assert encoding.accept({**given, "ca19-9": "n/a", "sex": "unknown"})["sex"] is None
    for change, words in (
        ({"AGE": "67y"}, "covariates: age: expected a number or None, found '67y'"),
        ({"AGE": "67"}, "covariates: age: expected a number or None, found '67'"),
        ({"AGE": True}, "covariates: age: expected a number or None, found True"),
        ({"AGE": float("inf")}, "covariates: age: expected a number or None, found inf"),
        ({"sex": 0.5}, "covariates: sex: expected a text or None, found 0.5"),
        ({"weight": 80}, r"covariates: expected age, sex, ca19-9, site, .*not known: weight; lacking: none"),
        ({"age": 67}, "once each, found AGE, sex, ca19-9, site, age"),
    ):
        with pytest.raises(SettingsError, match=words):
            encoding.accept({**given, **change})
    with pytest.raises(SettingsError, match=r"lacking: age.*Give None for what is missing"):
        encoding.accept({"sex": "F", "ca19-9": 3, "site": "head"})


def test_examples_in_the_docstrings_are_true() -> None:
    for module in (covariate_encoding, clinical_columns):
        tried = doctest.testmod(module)
        assert tried.attempted and not tried.failed
