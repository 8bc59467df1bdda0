"""Covariates from a table or a Python call: they reach the model, or are refused before any case is predicted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.clinical import ClinicalTable
from nnunet_3dct.formats.covariate_encoding import CovariateEncoding
from nnunet_3dct.inference import Predictor
from nnunet_3dct.inference.model import TrainedModel
from nnunet_3dct.inference.windows import AboutCase
from nnunet_3dct.networks.heads import FeatureSpec, register_head
from nnunet_3dct.networks.heads.grid import GridHead
from tests import toy
from tests.inference.predicting import reports, run
from tests.inference.test_continuing import manifest
from tests.inference.test_predict import CASES
from tests.inference.test_predict_failures import fails

PLAIN = ("--disable_tta",)
ROWS = {"new_000": (67, "F"), "new_001": (43.5, "M"), "new_002": (58, "f")}
Seen = list[tuple[Mapping[str, Any] | None, list[list[float]]]]


class GridHeadWithCovariates(GridHead):
    """The grid head with an option that says how it would take covariates."""

    name = "test_grid_with_covariates"

    def __init__(self, spec: FeatureSpec, num_classes: int, covariates: Any = None, **options: Any) -> None:
        super().__init__(spec, num_classes, **options)
        self.options["covariates"] = covariates


def encoding(seed: int = 0, number: str = "age") -> CovariateEncoding:
    """As fitted on ten cases of a fold, one of which misses its number."""
    rng = np.random.default_rng(seed)
    rows: dict[str, dict[str, Any]] = {
        str(n): {number: float(rng.integers(40, 80)), "sex": "FM"[n % 2]} for n in range(10)
    }
    rows["3"][number] = None
    return CovariateEncoding.fit(ClinicalTable({number: "number", "sex": "category"}, rows, Path("c.csv")), rows)


def give_covariates(model: Path, fitted: CovariateEncoding, fold: int = 0) -> None:
    path = model / f"fold_{fold}" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    register_head(GridHeadWithCovariates)  # not on import, since tests of all heads are collected meanwhile
    checkpoint["cls_head_config"]["name"] = GridHeadWithCovariates.name
    checkpoint["cls_head_config"]["options"]["covariates"] = fitted.to_dict()
    torch.save(checkpoint, path)


@pytest.fixture
def with_covariates(model: Path) -> Path:
    """The toy model, trained with age and sex."""
    give_covariates(model, encoding())
    return model


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the model was given with each case, and how the head of each fold would encode it."""
    given: Seen = []
    sound = TrainedModel.predict

    def predict(self: TrainedModel, data: torch.Tensor, about: AboutCase) -> Any:
        covariates = about.covariates
        heads = [backend.network.cls_head for backend in self.backends]
        fitted = [CovariateEncoding.from_dict(h.options["covariates"]) for h in heads if "covariates" in h.options]
        given.append((covariates, [e.encode(covariates).tolist() for e in fitted]))
        return sound(self, data, about)

    monkeypatch.setattr(TrainedModel, "predict", predict)
    return given


def write(path: Path, rows: Mapping[str, tuple[object, object]] = ROWS, header: str = "Names,age,sex") -> Path:
    path.write_text("\n".join([header, *(f"{case},{age},{sex}" for case, (age, sex) in rows.items())]) + "\n")
    return path


def test_covariates_of_each_case_reach_the_model_and_its_class_file(
    with_covariates: Path, images: Path, tmp_path: Path, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "clinical.csv", {**ROWS, "elsewhere": (50, "F")})
    run(images, tmp_path / "out", *PLAIN, "--clinical", str(table))
    expected = [{"age": float(age), "sex": sex} for age, sex in ROWS.values()]  # type: ignore[arg-type]
    assert [given for given, _ in seen] == expected
    assert [vectors for _, vectors in seen] == [[encoding().encode(values).tolist()] for values in expected]
    assert [content["covariates"] for content in reports(tmp_path / "out").values()] == expected
    assert not any("covariates_missing" in content for content in reports(tmp_path / "out").values())
    assert manifest(tmp_path / "out")["arguments"]["clinical"] == str(table)
    said = capsys.readouterr().out
    assert f"Rows of {table} that are of no case in {images}: elsewhere." in said and "missing" not in said


def test_python_calls_say_the_same_as_the_command(
    with_covariates: Path, images: Path, tmp_path: Path, seen: Seen
) -> None:
    table = write(tmp_path / "clinical.csv")
    run(images, tmp_path / "out", *PLAIN, "--clinical", str(table))
    predictor = Predictor(with_covariates, device="cpu", backend="torch", tta="none")
    assert predictor.covariates == {"age": "number", "sex": "category"}
    predictor.predict_folder(images, tmp_path / "python", clinical=table)
    assert reports(tmp_path / "python") == reports(tmp_path / "out")
    for case, (age, sex) in ROWS.items():
        found = predictor(images / f"{case}_0000.nii.gz", covariates={"Sex": sex, "age": age})  # type: ignore[dict-item]
        found.class_file["target_voxels"] = reports(tmp_path / "out")[case]["target_voxels"]
        assert found.class_file == reports(tmp_path / "out")[case]
    assert seen[:3] == seen[3:6] == seen[6:]


def test_missing_values_and_missing_rows_are_allowed_and_said(
    with_covariates: Path, images: Path, tmp_path: Path, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "clinical.csv", {"new_000": ("n/a", "F"), "new_002": (60, "M")})
    run(images, tmp_path / "out", *PLAIN, "--clinical", str(table))
    assert [given for given, _ in seen] == [
        {"age": None, "sex": "F"},
        {"age": None, "sex": None},
        {"age": 60.0, "sex": "M"},
    ]
    found = reports(tmp_path / "out")
    assert found["new_000"]["covariates_missing"] == ["age"]
    assert found["new_001"]["covariates_missing"] == ["age", "sex"]
    assert found["new_001"]["covariates"] == {"age": None, "sex": None}
    assert "covariates_missing" not in found["new_002"]
    said = capsys.readouterr().out
    assert f"Cases without a row in {table}, whose covariates all count as missing: new_001." in said
    assert "Covariates that are missing: new_000 (age)." in said
    predictor = Predictor(with_covariates, device="cpu", backend="torch", tta="none")
    prediction = predictor(images / "new_001_0000.nii.gz", covariates={"age": None, "sex": None})
    assert prediction.class_file["covariates_missing"] == ["age", "sex"]


def test_new_category_and_far_number_do_not_stop_the_run_and_are_said(
    with_covariates: Path, images: Path, tmp_path: Path, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "clinical.csv", {**ROWS, "new_001": (640, "divers")})
    run(images, tmp_path / "out", *PLAIN, "--clinical", str(table))
    found = reports(tmp_path / "out")
    age, sex = found["new_001"]["unusual"]
    assert age.startswith("age = 640 lies far outside ") and sex.startswith("sex = divers is in no training case")
    assert seen[1][0] == found["new_001"]["covariates"] == {"age": 640.0, "sex": "divers"}
    assert "unusual" not in found["new_000"] and "unusual" not in found["new_002"]
    said = capsys.readouterr().out
    assert f"new_001: {age}." in said and f"new_001: {sex}." in said


def test_each_fold_encodes_with_its_own_training_cases(
    with_covariates: Path, images: Path, tmp_path: Path, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(with_covariates / "fold_0", with_covariates / "fold_1")
    give_covariates(with_covariates, encoding(seed=1), fold=1)
    run(images, tmp_path / "out", *PLAIN, "--clinical", str(write(tmp_path / "clinical.csv")))
    for values, vectors in seen:
        assert vectors == [encoding(seed).encode(values).tolist() for seed in (0, 1)]
        assert vectors[0] != vectors[1]
    give_covariates(with_covariates, encoding(number="weight"), fold=1)
    message = fails(capsys, images, tmp_path / "out", *PLAIN, "--clinical", str(tmp_path / "clinical.csv"))
    assert "fold_1" in message and "expected the same head" in message


def test_value_that_one_fold_knows_is_not_unusual(with_covariates: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(with_covariates / "fold_0", with_covariates / "fold_1")
    rows: dict[str, dict[str, Any]] = {str(n): {"age": 20.0 + n, "sex": "divers"} for n in range(9)}
    table = ClinicalTable({"age": "number", "sex": "category"}, rows, Path("c.csv"))
    give_covariates(with_covariates, CovariateEncoding.fit(table, rows), fold=1)
    predictor = Predictor(with_covariates, device="cpu", backend="torch", tta="none")
    file = images / "new_000_0000.nii.gz"
    assert "unusual" not in predictor(file, covariates={"age": 22, "sex": "divers"}).class_file
    assert len(predictor(file, covariates={"age": 640, "sex": "x"}).class_file["unusual"]) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Names,age\nnew_000,67\n", "expected the columns age, sex, which the model was trained with; sex not found"),
        ("Names,age,sex\nnew_000,67y,F\n", "new_000: column age: expected a number, found '67y'"),
        ("Names,age,sex\nnew_000,67,F\nnew_000,67,F\n", "new_000: expected one row, found the lines 2 and 3"),
        (
            "Names,age,sex\nother,67,F\n",
            "expected the cases of .*, such as new_000, new_001, new_002, found rows of other",
        ),
        ("Names,age,sex\nNEW-1,67,F\nnew_000,1,F\n", r"found rows of NEW-1 \(did you mean new_001\?\)"),
    ],
    ids=["column", "text", "twice", "other cases", "misspelt"],
)
def test_table_that_does_not_fit_is_refused_before_any_case(
    content: str,
    words: str,
    with_covariates: Path,
    images: Path,
    tmp_path: Path,
    seen: Seen,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "clinical.csv"
    table.write_text(content)
    message = fails(capsys, images, tmp_path / "out", *PLAIN, "--clinical", str(table))
    assert str(table) in message
    with pytest.raises(SettingsError, match=words):
        Predictor(with_covariates, device="cpu", backend="torch").predict_folder(
            images, tmp_path / "out", clinical=table
        )
    assert not seen and toy.folders_below(tmp_path / "out") == []


def test_model_with_covariates_and_no_table_is_refused_with_what_is_missing(
    with_covariates: Path, images: Path, tmp_path: Path, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, images, tmp_path / "out", *PLAIN)
    assert "error: --clinical: expected a table with Names and age (a number), sex (a category)" in message
    predictor = Predictor(with_covariates, device="cpu", backend="torch", tta="none")
    with pytest.raises(SettingsError, match=r"^clinical: expected a table"):
        predictor.predict_folder(images, tmp_path / "out")
    file = images / "new_000_0000.nii.gz"
    with pytest.raises(SettingsError, match=r"^covariates: expected age \(a number\), sex \(a category\).*found none"):
        predictor(file)
    with pytest.raises(SettingsError, match="lacking: sex"):
        predictor(file, covariates={"age": 67})
    with pytest.raises(SettingsError, match="age: expected a number or None, found '67y'"):
        predictor(file, covariates={"age": "67y", "sex": "F"})
    assert not seen and not (tmp_path / "out").exists()


def test_model_without_covariates_and_a_table_is_refused(
    model: Path, images: Path, tmp_path: Path, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "clinical.csv")
    message = fails(capsys, images, tmp_path / "out", *PLAIN, "--clinical", str(table))
    assert "error: --clinical: expected none, since this model was trained without covariates" in message
    predictor = Predictor(model, device="cpu", backend="torch", tta="none")
    assert predictor.covariates is None
    with pytest.raises(SettingsError, match=r"covariates: expected none.*found age"):
        predictor(images / "new_000_0000.nii.gz", covariates={"age": 67})
    assert not seen and not (tmp_path / "out").exists()
    found = predictor(images / "new_000_0000.nii.gz")
    assert seen == [(None, [])] and not {"covariates", "covariates_missing", "unusual"} & found.class_file.keys()


def test_table_that_is_not_there_is_named_before_the_model_is_loaded(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, images, tmp_path / "out", "--clinical", str(tmp_path / "no.csv"))
    assert f"error: --clinical: expected a table of covariates, found no file {tmp_path / 'no.csv'}" in message


def test_parts_of_a_folder_share_one_table(with_covariates: Path, images: Path, tmp_path: Path, seen: Seen) -> None:
    table = write(tmp_path / "clinical.csv", {"new_001": (43.5, "M")})
    for part in ("0", "1", "2"):
        run(images, tmp_path / "out", *PLAIN, "--clinical", str(table), "-num_parts", "3", "-part_id", part)
    assert list(reports(tmp_path / "out")) == CASES
    assert [given for given, _ in seen][1] == {"age": 43.5, "sex": "M"}
    assert len((tmp_path / "out" / "subtype_results.csv").read_text().splitlines()) == 4


def test_cases_whose_covariates_changed_are_predicted_again(
    with_covariates: Path, images: Path, tmp_path: Path, seen: Seen
) -> None:
    table = write(tmp_path / "clinical.csv")
    flags = (*PLAIN, "--clinical", str(table))
    run(images, tmp_path / "out", *flags)
    run(images, tmp_path / "out", *flags, "--continue_prediction")
    assert manifest(tmp_path / "out")["kept"] == CASES and len(seen) == 3
    write(table, {**ROWS, "new_001": (44, "M")})
    run(images, tmp_path / "out", *flags, "--continue_prediction")
    assert manifest(tmp_path / "out")["kept"] == ["new_000", "new_002"] and len(seen) == 4
    assert reports(tmp_path / "out")["new_001"]["covariates"]["age"] == 44


def test_manifest_and_class_files_stay_json(with_covariates: Path, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out", *PLAIN, "--clinical", str(write(tmp_path / "clinical.csv")))
    head = json.loads((tmp_path / "out" / "prediction_manifest.json").read_text())["head"]
    assert CovariateEncoding.from_dict(head["options"]["covariates"]) == encoding()
