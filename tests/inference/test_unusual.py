"""Cases unlike the training cases, and what spoke for a class, in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

import nnunet_3dct
from nnunet_3dct.errors import CheckpointError, EvaluationError
from nnunet_3dct.formats.class_files import class_file, read_class_file
from nnunet_3dct.formats.class_tables import write_class_tables
from nnunet_3dct.formats.prediction_folders import read_predictions
from nnunet_3dct.inference.reasons import Intensities, reasons
from nnunet_3dct.inference.unusual import SeenSizes, unfamiliar_features
from nnunet_3dct.networks.case_layout import IMAGE_BLOCKS, IMAGE_CONTRAST
from nnunet_3dct.networks.familiarity import fit_familiarity
from nnunet_3dct.networks.heads.case import CaseHead
from nnunet_3dct.training.fitted_model import TRAINER, fit_head
from tests import toy
from tests.inference.predicting import reports, run
from tests.training.test_fit_head import case_head, fitted, problem
from tests.utils import write_volume


def fingerprint(folder: Path, **content: object) -> Path:
    (folder / "dataset_fingerprint.json").write_text(
        json.dumps({"spacings": [[2, 1, 1], [3, 1, 1]], "shapes_after_crop": [[30, 100, 90], [40, 120, 80]], **content})
    )
    return folder


def properties(spacing: tuple[float, ...], shape: tuple[int, ...]) -> dict[str, object]:
    return {"spacing": spacing, "shape_after_cropping_and_before_resampling": shape}


def test_spacing_and_extent_outside_what_was_seen_are_told(tmp_path: Path) -> None:
    seen = SeenSizes.of_model(fingerprint(tmp_path), (0, 1, 2))
    assert seen is not None
    assert seen.remarks(properties((2.5, 1, 1), (35, 110, 85)), (0, 1, 2)) == []
    (thick,) = seen.remarks(properties((6, 1, 1), (15, 110, 85)), (0, 1, 2))
    assert thick.startswith("spacing 6 x 1 x 1 mm") and "2 x 1 x 1 to 3 x 1 x 1" in thick
    (long,) = seen.remarks(properties((2.5, 1, 1), (400, 110, 85)), (0, 1, 2))
    assert long.startswith("extent 1000 x 110 x 85 mm")


def test_sizes_follow_the_axes_of_the_network(tmp_path: Path) -> None:
    seen = SeenSizes.of_model(fingerprint(tmp_path), (2, 0, 1))
    assert seen is not None and seen.spacing[1].tolist() == [1, 3, 1]
    assert seen.remarks(properties((2.5, 1, 1), (85, 35, 110)), (2, 0, 1)) == []


def test_model_without_fingerprint_tells_no_sizes_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert SeenSizes.of_model(tmp_path, (0, 1, 2)) is None
    with pytest.raises(CheckpointError, match="expected spacings and shapes_after_crop of every case"):
        SeenSizes.of_model(fingerprint(tmp_path, spacings=[[1, 1]]), (0, 1, 2))


@pytest.mark.parametrize("n", [60, 12])
def test_distance_is_the_mahalanobis_distance_under_scikit_learns_shrunk_covariance(n: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 20)) @ rng.normal(size=(20, 20)) + 3
    new = rng.normal(size=(9, 20)) @ rng.normal(size=(20, 20)) + 3
    familiarity = fit_familiarity(x, np.ones(20, bool))
    z, z_new = ((data - x.mean(0)) / x.std(0) for data in (x, new))
    expected = np.sqrt(LedoitWolf().fit(z).mahalanobis(z_new.clip(-20, 20)) / 20)
    np.testing.assert_allclose(familiarity.distance(torch.from_numpy(new)).numpy(), expected, rtol=2e-3)


def test_features_far_from_the_training_cases_are_told_by_most_folds() -> None:
    features, known = problem([0, 1, 2], 60)
    head, _ = fitted(3, features, known)
    row = torch.from_numpy(features["case_003"])
    assert unfamiliar_features([head], [row]) == []
    (text,) = unfamiliar_features([head, head, head], [row + 80, row + 80, row])
    assert text.startswith("features unlike those of the training cases (")
    assert unfamiliar_features([head, head, head], [row + 80, row, row]) == []


def change(row: torch.Tensor, head: CaseHead, start: tuple[str, ...], by: float) -> torch.Tensor:
    """Measurements of the image whose names start so, moved by standard deviations of the training cases."""
    row = row.clone()
    of_image = [n for block in IMAGE_BLOCKS for n in head.layout.blocks[block]]
    chosen = [n for n in of_image if head.layout.names[n].startswith(start)]
    assert chosen
    row[chosen] += by * head.known[1].spread[chosen].double()
    return row


@pytest.mark.parametrize(
    ("start", "by", "words"),
    [
        (("strength", "roughness", "gradient along"), -8, "image more blurred than the training images"),
        (("strength", "roughness", "gradient along"), 8, "image noisier or sharper than the training images"),
        (("mean", "standard", "percentile", "kurtosis"), 9, "intensities distributed unlike those of the training"),
        (("asymmetry",), 9, "contrast of the image unlike that of the training images"),
    ],
)
def test_what_is_unlike_about_an_image_is_said_where_most_folds_agree(
    start: tuple[str, ...], by: float, words: str
) -> None:
    features, known = problem([0, 1, 2], 60)
    head, _ = fitted(3, features, known)
    row = torch.from_numpy(features["case_003"])
    odd = change(row, head, start, by)
    (text,) = unfamiliar_features([head, head, head], [odd, odd, row])
    assert text.startswith("features unlike those of the training cases (") and f": {words}" in text
    assert unfamiliar_features([head, head, head], [odd, row, row]) == []


def test_swapped_light_and_dark_is_said() -> None:
    features, known = problem([0, 1, 2], 60)
    head = case_head(3)
    contrast = list(head.layout.blocks[IMAGE_CONTRAST])
    for row in features.values():
        row[contrast] = 1 + 0.1 * np.sign(row[contrast]) * (row[contrast] % 1)
    head, _ = fitted(3, features, known)
    row = torch.from_numpy(features["case_003"])
    row[contrast] *= -1
    (text,) = unfamiliar_features([head], [row])
    assert text.endswith(": light and dark of the image swapped against the training images")


def test_reasons_are_measured_in_hu_and_shares_are_of_all_contributions() -> None:
    features, known = problem([0, 1, 2], 60)
    head, _ = fitted(3, features, known)
    row = torch.from_numpy(features["case_004"])
    found = reasons([head], [row], 1, Intensities(scale=100.0, offset=-50.0))
    assert [r["share"] for r in found] == sorted((r["share"] for r in found), reverse=True)
    assert 0 < sum(r["share"] for r in found) <= 1 + 1e-6
    added = head.contributions(row.float(), 1)
    measured = [r for r in found if r.get("unit") == "HU"]
    assert measured
    for reason in measured:
        column = head.layout.names.index(reason["feature"])
        offset = -50 if reason["feature"].startswith(("mean", "percentile")) else 0
        assert reason["value"] == pytest.approx(float(row[column]) * 100 + offset)
        assert reason["speaks"] == ("for" if added[column] > 0 else "against")
        assert reason["share"] == pytest.approx(float(added[column].abs() / added.abs().sum()), rel=1e-4)


def test_class_file_and_tables_hold_what_is_unusual(tmp_path: Path) -> None:
    for case, unusual in (("a", ["spacing, large", "noise"]), ("b", [])):
        content = class_file([0.2, 0.8], ["x", "y"])
        if unusual:
            content["unusual"] = unusual
        (tmp_path / f"{case}_classification.json").write_text(json.dumps(content))
    write_class_tables(tmp_path, ["a", "b"], ".nii.gz")
    lines = (tmp_path / "subtype_probabilities.csv").read_text().splitlines()
    assert lines[0] == "Names,x,y,Unusual" and lines[1].endswith(',"spacing, large; noise"') and lines[2].endswith(",")
    assert (tmp_path / "subtype_results.csv").read_text().splitlines()[0] == "Names,Subtype"
    for case in ("a", "b"):
        (tmp_path / f"{case}_classification.json").unlink()
    read, _ = read_predictions(tmp_path)
    assert read["a"].unusual == ("spacing, large; noise",) and read["b"].unusual == ()
    np.testing.assert_allclose(read["a"].probabilities, [0.2, 0.8])


REASON = {"feature": "mean", "words": "denser", "speaks": "for", "share": 0.5, "value": -210.5, "typical": None}


def test_class_file_gives_back_what_is_unusual_and_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "a_classification.json"
    path.write_text(json.dumps({"probs": [0.5, 0.5], "unusual": ["noise"], "reasons": [REASON]}))
    found = read_class_file(path)
    assert found.unusual == ("noise",) and found.reasons == (REASON,)
    path.write_text(json.dumps({"probs": [0.5, 0.5]}))
    assert read_class_file(path).unusual == read_class_file(path).reasons == ()


@pytest.mark.parametrize(
    "content",
    [
        {"unusual": "noise"},
        {"unusual": [1]},
        {"reasons": {}},
        {"reasons": ["denser"]},
        {"reasons": [{"feature": "x"}]},
        *({"reasons": [REASON, {**REASON, **change}]} for change in (
            {"share": "0.5"}, {"share": 1.5}, {"share": -0.1}, {"share": True}, {"share": float("nan")},
            {"speaks": "maybe"}, {"speaks": []}, {"value": "high"}, {"typical": float("inf")}, {"unit": 3},
            {"words": None},
        )),
    ],
)  # fmt: skip
def test_malformed_remarks_are_refused(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "a_classification.json"
    path.write_text(json.dumps({"probs": [0.5, 0.5], **content}))
    with pytest.raises(EvaluationError, match="Predict the case again"):
        read_class_file(path)


def test_class_that_is_called_unusual_keeps_its_column(tmp_path: Path) -> None:
    (tmp_path / "subtype_probabilities.csv").write_text("Names,Benign,Unusual\na,0.2,0.8\nb,0.7,0.3\n")
    read, _ = read_predictions(tmp_path)
    assert [read[case].label for case in "ab"] == [1, 0] and read["a"].class_names == ("Benign", "Unusual")
    content = {**class_file([0.2, 0.8], ["Benign", "Unusual"]), "unusual": ["noise"]}
    (tmp_path / "a_classification.json").write_text(json.dumps(content))
    write_class_tables(tmp_path, ["a"], ".nii.gz")
    (tmp_path / "a_classification.json").unlink()
    read, _ = read_predictions(tmp_path)
    assert read["a"].label == 1 and read["a"].unusual == ("noise",)
    assert read["a"].class_names == ("Benign", "Unusual")


@pytest.fixture(scope="module")
def fitted_results(toy_root: Path, trained_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``nnUNet_results`` with a case head fitted to the toy's stage 1; read only."""
    results = tmp_path_factory.mktemp("fitted")
    output = results / toy.DATASET / f"{TRAINER}__{toy.PLANS}__3d_fullres"
    output.parent.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as environment:
        for name, folder in (("nnUNet_raw", "raw"), ("nnUNet_preprocessed", "preprocessed")):
            environment.setenv(name, str(toy_root / folder))
        environment.setenv("nnUNet_results", str(results))
        fit_head(toy.trained_folder(trained_results, toy.STAGE1), output, backend="torch", device="cpu", resamples=0)
    return results


@pytest.fixture
def fitted_model(nnunet: Path, fitted_results: Path) -> Path:
    """A copy in this test's own ``nnUNet_results``."""
    return toy.copy_model(toy.trained_folder(fitted_results, TRAINER), nnunet)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-3000, 3000, toy.SHAPE).astype(np.int16)


def inverted(image: np.ndarray) -> np.ndarray:
    return (400 - image).astype(np.int16)


def test_foreign_images_are_marked_and_ordinary_ones_mostly_not(fitted_model: Path) -> None:
    predictor = nnunet_3dct.Predictor(fitted_model, device="cpu", backend="torch", tta="none")

    def marked(image: np.ndarray) -> bool:
        found = predictor(image, spacing=(1, 1, 1))
        assert found.unusual == tuple(found.class_file.get("unusual", ()))
        assert found.reasons == tuple(found.class_file["reasons"])
        return any("features unlike" in text for text in found.unusual)

    ordinary = [toy.toy_volume(100 + n)[0] for n in range(12)]
    assert marked(noise())
    assert sum(marked(image) for image in ordinary) <= 4  # six training cases tell little
    assert sum(marked(inverted(image)) for image in ordinary) >= 10


def test_image_of_another_spacing_is_told_by_the_command_with_its_number_and_name(
    fitted_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = toy.toy_volume(100)[0]
    write_volume(tmp_path / "in" / "coarse_0000.nii.gz", image, (2, 2, 2))
    for n in range(2):
        write_volume(tmp_path / "in" / f"new_{n}_0000.nii.gz", toy.toy_volume(100 + n)[0])
    run(tmp_path / "in", tmp_path / "out", "-tr", TRAINER, "--disable_tta")
    said, (manifest,) = capsys.readouterr().out, (tmp_path / "out").glob("prediction_manifest.json")
    unusual = json.loads(manifest.read_text())["unusual"]
    assert any(text.startswith("spacing 2 x 2 x 2 mm, training images 1 x 1 x 1") for text in unusual["coarse"])
    assert f"Unlike the training cases, {len(unusual)} of 3: coarse" in said
    assert "coarse: spacing 2 x 2 x 2 mm" in said
    assert all("review" not in content for content in reports(tmp_path / "out").values())


def test_unusual_case_goes_to_review_and_stays_there_when_it_is_kept(fitted_model: Path, tmp_path: Path) -> None:
    write_volume(tmp_path / "in" / "noise_0000.nii.gz", noise())
    predictor = nnunet_3dct.Predictor(fitted_model, device="cpu", backend="torch", tta="none", abstain=0.01)
    result = predictor.predict_folder(tmp_path / "in", tmp_path / "out")
    assert list(result.unusual) == list(result.review) == ["noise"]
    content = reports(tmp_path / "out")["noise"]
    assert content["review"] is True and max(content["probs"]) > 0.01
    again = predictor.predict_folder(tmp_path / "in", tmp_path / "out", continue_prediction=True)
    assert again.kept == ["noise"] and again.review == result.review and again.unusual == result.unusual
    assert reports(tmp_path / "out")["noise"] == content
    manifest = json.loads((tmp_path / "out" / "prediction_manifest.json").read_text())
    assert manifest["unusual"] == result.unusual and manifest["review"] == result.review
    plain = nnunet_3dct.Predictor(fitted_model, device="cpu", backend="torch", tta="none")
    kept = plain.predict_folder(tmp_path / "in", tmp_path / "out", continue_prediction=True)
    assert kept.review == {} and "review" not in reports(tmp_path / "out")["noise"]
