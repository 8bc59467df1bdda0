"""What spoke for a class, in words and in the units of the image and of the covariates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_3dct.formats.class_reasons import Reason
from nnunet_3dct.formats.clinical import ClinicalTable
from nnunet_3dct.formats.clinical_columns import CATEGORY, NUMBER
from nnunet_3dct.formats.covariate_encoding import CovariateEncoding
from nnunet_3dct.inference.measurements import measurement_names
from nnunet_3dct.inference.reasons import Intensities, reasons
from nnunet_3dct.networks.heads import FeatureSpec
from nnunet_3dct.networks.heads.case import CaseHead

HU = Intensities(scale=100.0, offset=-50.0)


def encoding(ages: list[float | None], sexes: str = "FMFM") -> CovariateEncoding:
    rows: dict[str, dict[str, Any]] = {
        str(n): {"age": age, "sex": sex} for n, (age, sex) in enumerate(zip(ages, sexes, strict=True))
    }
    return CovariateEncoding.fit(ClinicalTable({"age": NUMBER, "sex": CATEGORY}, rows, Path("c.csv")), rows)


def head(weights: dict[str, float], covariates: CovariateEncoding | None = None) -> CaseHead:
    """A head of two classes, all training means 0, in which some columns speak for class 1."""
    stated = None if covariates is None else covariates.to_dict()
    made = CaseHead(FeatureSpec((3, 4), (3,), 3), 2, measured=measurement_names(1), covariates=stated).eval()
    torch.nn.init.zeros_(made.classifier.weight)
    with torch.no_grad():
        for name, weight in weights.items():
            made.classifier.weight[1, made.layout.names.index(name)] = weight
    return made


def row(of: CaseHead, values: dict[str, float], covariates: dict[str, Any] | None = None) -> torch.Tensor:
    columns = torch.zeros(len(of.layout.names), dtype=torch.float64)
    for name, value in values.items():
        columns[of.layout.names.index(name)] = value
    if covariates is not None:
        columns[list(of.layout.blocks["covariates"])] = torch.from_numpy(of.encode_covariates(covariates))
    return columns


def only(found: list[Reason]) -> Reason:
    (reason,) = found
    return reason


@pytest.mark.parametrize(
    ("name", "value", "words", "said", "typical", "unit"),
    [
        ("mean in the core", 2.0, "denser core", 150, -50, "HU"),
        ("mean in the core", -2.0, "less dense core", -250, -50, "HU"),
        ("mean", 1.0, "denser on average", 50, -50, "HU"),
        ("percentile 95", -1.0, "less dense (percentile 95)", -150, -50, "HU"),
        ("spread in the inner rim", 1.0, "more uneven inner rim", 100, 0, "HU"),
        ("gradient at the edge", 1.0, "sharper edge", 100, 0, "HU"),
        ("volume", np.log(3), "larger", 3, 1, "ml"),
        ("longest axis", np.log(0.5), "shorter longest axis", 0.5, 1, "mm"),
        ("surface", np.log(2), "larger surface", 2, 1, "cm2"),
        ("parts", np.log1p(3), "in more parts", 3, 0, None),
        ("sphericity", -0.5, "less round", -0.5, 0, None),
    ],
)
def test_measurements_are_told_in_words_and_in_their_own_unit(
    name: str, value: float, words: str, said: float, typical: float, unit: str | None
) -> None:
    made = head({name: 1.0})
    reason = only(reasons([made], [row(made, {name: value})], 1, HU))
    assert reason["words"] == words and reason.get("unit") == unit
    assert (reason["value"], reason["typical"]) == pytest.approx((said, typical), abs=1e-5)
    assert reason["speaks"] == ("for" if value > 0 else "against") and reason["share"] == pytest.approx(1)


def test_what_speaks_for_one_class_speaks_against_the_other() -> None:
    made = head({"mean in the core": 1.0})
    columns = row(made, {"mean in the core": 2.0})
    assert [only(reasons([made], [columns], k, HU))["speaks"] for k in (0, 1)] == ["against", "for"]


def test_intensities_that_are_no_hu_have_no_unit_and_no_density() -> None:
    assert Intensities.of(["ZScoreNormalization"], {"0": {"std": 2.0, "mean": 1.0}}) is None
    assert Intensities.of(["CTNormalization"], {"0": {"std": 2.0, "mean": 1.0}}) == Intensities(2.0, 1.0)
    made = head({"mean in the core": 1.0})
    reason = only(reasons([made], [row(made, {"mean in the core": 2.0})], 1))
    assert reason["words"] == "brighter core" and reason["value"] == 2 and "unit" not in reason


def test_columns_of_one_stage_are_put_together_and_the_networks_size_is_no_texture() -> None:
    made = head({"encoder 0: mean of channel 0": 3.0, "encoder 0: mean of channel 1": -1.0, "mean": 1.0})
    with torch.no_grad():
        made.classifier.weight[1, made.layout.blocks["size"][0]] = 1.0
    columns = row(made, {"encoder 0: mean of channel 0": 1, "encoder 0: mean of channel 1": 1, "mean": 1})
    columns[made.layout.blocks["size"][0]] = 1
    found = {reason["feature"]: reason for reason in reasons([made], [columns], 1, HU)}
    assert found.keys() == {"encoder 0", "size", "mean"}
    assert found["encoder 0"]["words"] == "texture in the network's encoder 0" and "value" not in found["encoder 0"]
    assert found["size"]["words"] == "larger, as the network sees it"
    shares = [found[name]["share"] for name in ("encoder 0", "size", "mean")]
    assert shares == pytest.approx([2 / 6, 1 / 6, 1 / 6])  # of 3 + 1 + 1 + 1, whatever their sign


def test_measurement_that_is_missing_speaks_for_nothing() -> None:
    made = head({"mean": 1.0, "volume": 1.0})
    found = reasons([made], [row(made, {"mean": float("nan"), "volume": 1.0})], 1, HU)
    assert [reason["feature"] for reason in found] == ["volume"]


def test_covariates_are_told_in_their_own_unit_though_every_fold_scales_them_differently() -> None:
    folds = [head({"age": 1.0}, encoding(ages)) for ages in ([40.0, 60.0, 40.0, 60.0], [50.0, 90.0, 50.0, 90.0])]
    columns = [row(fold, {}, {"age": 80.0, "sex": "M"}) for fold in folds]
    reason = only(reasons(folds, columns, 1))
    assert reason["words"] == "higher age" and reason["value"] == pytest.approx(80)
    assert reason["typical"] == pytest.approx((50 + 70) / 2)


def test_covariate_that_is_missing_and_categories_have_words_without_values() -> None:
    made = head({"age": 1.0, "age missing": 1.0, "sex = F": 1.0, "sex = M": 2.0}, encoding([40.0, None, 60.0, 60.0]))
    with torch.no_grad():
        made.norm.mean[list(made.layout.blocks["covariates"])] = torch.tensor([0.1, 0.25, 0.5, 0.5])
    found = {r["feature"]: r for r in reasons([made], [row(made, {}, {"age": None, "sex": "M"})], 1)}
    assert [found[name]["words"] for name in ("age", "age missing", "sex = M", "sex = F")] == [
        "average age", "age missing", "sex = M", "sex is not stated as F",
    ]  # fmt: skip
    assert not any("value" in reason for reason in found.values())


def test_folds_are_averaged() -> None:
    folds = [head({"mean": weight}) for weight in (3.0, 1.0)]
    with torch.no_grad():
        folds[1].norm.mean += 1
    columns = [row(folds[0], {"mean": 1.0, "volume": 0.0}), row(folds[1], {"mean": 3.0})]
    reason = only(reasons(folds, columns, 1))
    assert reason["value"] == pytest.approx(2) and reason["typical"] == pytest.approx(0.5)


def test_folds_of_other_covariate_columns_are_left_out() -> None:
    first = head({"age": 1.0}, encoding([40.0, 60.0, 40.0, 60.0]))
    other = head({"mean": 50.0}, encoding([40.0, None, 40.0, 60.0]))  # has one more column
    case = {"age": 80.0, "sex": "M"}
    columns = [row(first, {}, case), row(other, {"mean": 9.0}, case)]
    assert reasons([first, other], columns, 1) == reasons([first], columns[:1], 1)
    assert only(reasons([other, first], columns[::-1], 1))["feature"] == "mean"


def test_head_without_weights_gives_no_reason() -> None:
    made = head({})
    assert reasons([made], [row(made, {"mean": 1.0})], 1) == []


def test_six_reasons_at_most_the_weightiest_first() -> None:
    names = measurement_names(1)["profile"]
    made = head({name: float(n + 1) for n, name in enumerate(names)})
    found = reasons([made], [row(made, dict.fromkeys(names, 1.0))], 1, HU)
    assert [reason["feature"] for reason in found] == names[::-1][:6]
    assert sum(reason["share"] for reason in found) < 1
