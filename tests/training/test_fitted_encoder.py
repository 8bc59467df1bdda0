"""A head fitted to the features of an encoder of another training, from the fit to the prediction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_3dct.cli import fit_head as command
from nnunet_3dct.formats.checkpoint import read_checkpoint
from nnunet_3dct.inference.backends import openvino_backend
from nnunet_3dct.networks.features import FeatureSpec
from nnunet_3dct.networks.foreign_encoder import open_encoder
from nnunet_3dct.networks.heads import build_head
from nnunet_3dct.training.case_features import CaseFeatures
from nnunet_3dct.training.fitted_model import RESULT, TRAINER
from nnunet_3dct.upstream import PlansManager
from tests import toy
from tests.inference.predicting import reports, run
from tests.networks import foreign
from tests.networks.test_foreign_encoder import averaged

CPU = torch.device("cpu")
FINAL = Path("fold_0") / "checkpoint_final.pth"


@pytest.fixture
def stage_1(nnunet: Path, trained_results: Path) -> Path:
    """A copy of the toy's stage 1."""
    source = toy.trained_folder(trained_results, toy.STAGE1)
    return Path(shutil.copytree(source, nnunet / toy.DATASET / source.name))


def exit_code(*arguments: str) -> int:
    flags = ["-d", toy.DATASET, "-tr", toy.STAGE1, "-p", toy.PLANS, "-device", "cpu", "--disable_progress_bar"]
    try:
        command.main([*flags, "--backend", "torch", *arguments])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def features(model: Path, encoder: Path | None = None) -> CaseFeatures:
    """Of whole cases by the model's network, or by an encoder under the outline of that."""
    plans, dataset_json = (json.loads((model / name).read_text()) for name in ("plans.json", "dataset.json"))
    own = PlansManager(plans).get_configuration("3d_fullres")
    found = None if encoder is None else open_encoder(encoder, own, 1, own.patch_size)
    checkpoint = read_checkpoint(model / FINAL)
    return CaseFeatures(checkpoint, plans, dataset_json, None, 3, CPU, encoder=found, backend="torch")


def test_fit_and_prediction_with_the_encoder_of_another_model(
    stage_1: Path, images: Path, toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = foreign.old_format(foreign.plans(toy_root))
    folder = foreign.results_folder(tmp_path, plans)
    assert exit_code("--encoder", str(folder)) == 0
    said = capsys.readouterr().out
    assert f"Features come from the encoder of {folder / FINAL} trained on {foreign.DATASET}: 4 stages" in said
    output = stage_1.parent / f"{TRAINER}__{toy.PLANS}__3d_fullres"
    result = json.loads((output / RESULT).read_text())
    assert result["encoder"] == str(folder / FINAL) and result["out_of_fold"]["n_samples"] == len(toy.VALIDATION)
    before, after = (torch.load(m / FINAL, weights_only=m == output)["network_weights"] for m in (stage_1, output))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    head = torch.load(output / FINAL, weights_only=True)["cls_head_state"]
    for name, value in foreign.network(plans).encoder.state_dict().items():
        assert torch.equal(head[f"encoder.{name}"], value), name
    shutil.rmtree(folder)  # the checkpoint holds all that prediction needs
    for backend in ("torch", "openvino"):
        flags = ("-tr", TRAINER, "--backend", backend, "--precision", "f32", "--tta", "pair", "--explain")
        run(images, tmp_path / backend, *flags)
    found = {backend: reports(tmp_path / backend) for backend in ("torch", "openvino")}
    assert len(found["torch"]) == 3
    for case, report in found["torch"].items():
        other = found["openvino"][case]
        assert (report["produced_by"]["backend"], other["produced_by"]["backend"]) == ("torch", "openvino")
        np.testing.assert_allclose(report["logits"], other["logits"], rtol=2e-3, atol=2e-3)
        assert report["pred"] == other["pred"]


def test_class_of_a_validation_case_is_predicted_as_the_fit_gave_it(
    stage_1: Path, toy_root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.pth"
    torch.save(foreign.checkpoint(foreign.plans(toy_root, toy.RESENC_PLANS)), path)
    assert exit_code("-pretrained_weights", str(path)) == 0  # as nnUNetv2_train names it
    case = toy.VALIDATION[0]
    (tmp_path / "in").mkdir()
    name = f"{case}_0000.nii.gz"
    shutil.copyfile(toy_root / "raw" / toy.DATASET / "imagesTr" / name, tmp_path / "in" / name)
    run(tmp_path / "in", tmp_path / "out", "-tr", TRAINER, "--disable_tta")
    output = stage_1.parent / f"{TRAINER}__{toy.PLANS}__3d_fullres"
    stored = json.loads((output / "fold_0" / "validation" / f"{case}_classification.json").read_text())
    logits = torch.tensor(reports(tmp_path / "out")[case]["logits"])
    np.testing.assert_allclose(logits.softmax(0).numpy(), stored["probs"], atol=2e-3)


def test_own_encoder_gives_what_the_model_gives(stage_1: Path, toy_root: Path) -> None:
    own, other = features(stage_1), features(stage_1, stage_1)
    image = torch.randn((1, *toy.SHAPE), generator=torch.Generator().manual_seed(0))  # four windows
    mine, theirs = (maker.of_image(image, (1.0, 1.0, 1.0)) for maker in (own, other))
    names, others = own.head.layout.names, other.head.layout.names
    assert {n for n in names if n not in others} == {n for n in names if n.startswith("decoder")}
    same = [names.index(name) for name in others]
    np.testing.assert_allclose(theirs, mine[same], rtol=1e-5, atol=1e-5)


def test_features_are_those_of_the_other_encoder_under_the_models_outline(
    stage_1: Path, toy_root: Path, tmp_path: Path
) -> None:
    plans = foreign.plans(toy_root)
    torch.save(foreign.checkpoint(plans), tmp_path / "other.pth")
    maker = features(stage_1, tmp_path / "other.pth")
    image = torch.randn((1, 16, 16, 16), generator=torch.Generator().manual_seed(0))  # one window
    found = maker.of_image(image, (1.0, 1.0, 1.0))
    with torch.no_grad():
        probability = maker.network(image[None]).softmax(1)[0, 1:].sum(0).numpy().astype(float)
        stages = foreign.network(plans).encoder(image[None])
    expected = []
    for stage in stages:
        under = averaged(probability**2, tuple(stage.shape[2:]))
        expected += [np.average(channel, weights=under) for channel in stage[0].numpy().astype(float)]
    columns = [n for n, name in enumerate(maker.head.layout.names) if ": mean of channel" in name and "encoder" in name]
    np.testing.assert_allclose(found[columns], expected, rtol=1e-3, atol=1e-4)


def test_features_are_kept_by_the_encoders_weights(stage_1: Path, toy_root: Path, tmp_path: Path) -> None:
    plans = foreign.plans(toy_root)
    rows = []
    for seed in (1, 2, 1):
        torch.save(foreign.checkpoint(plans, seed=seed), tmp_path / "other.pth")
        maker = features(stage_1, tmp_path / "other.pth")
        ((_, row),) = maker.of_cases(toy_root / "preprocessed" / toy.DATASET, toy.CASES[:1])
        rows.append(row)
    assert not np.allclose(rows[0], rows[1]) and np.array_equal(rows[0], rows[2])


def test_runtime_keeps_models_with_different_encoders_apart(stage_1: Path, toy_root: Path, tmp_path: Path) -> None:
    plans, found = foreign.plans(toy_root), []
    image = torch.randn((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    for seed in (1, 2):
        torch.save(foreign.checkpoint(plans, seed=seed), tmp_path / "other.pth")
        network = features(stage_1, tmp_path / "other.pth").network
        backend = openvino_backend.OpenVINOBackend(network, (1, 16, 16, 16), "f32")
        with torch.no_grad():
            shown = network.segment_with_features(image)[1]
            (expected,) = network.cls_head.summarize(shown, torch.ones_like(image))
        logits, pooled = backend(image, True, torch.ones_like(image))
        torch.testing.assert_close(pooled, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(logits, shown.logits, rtol=1e-3, atol=1e-4)
        found.append(pooled.clone())
    assert not torch.allclose(*found)


def test_encoder_trained_on_the_same_data_is_warned_of(
    stage_1: Path, toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("--encoder", str(stage_1)) == 0
    assert f"WARNING: {stage_1 / FINAL} was trained on {toy.DATASET} too" in capsys.readouterr().out


def missing(toy_root: Path, path: Path) -> None:
    pass


def flat(toy_root: Path, path: Path) -> None:
    torch.save(foreign.checkpoint(foreign.plans(toy_root), configuration="2d"), path)


def other_network(toy_root: Path, path: Path) -> None:
    torch.save(foreign.network(foreign.plans(toy_root)).state_dict(), path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (missing, "expected a file, found none"),
        (flat, "expected one of a 3D network, as the segmentation is, found one of a 2D network"),
        (other_network, "Give nnU-Net's checkpoint or the folder of the trained model, which hold the plans."),
    ],
)
def test_encoder_that_does_not_fit_is_named_before_any_work(
    make: Any, said: str, stage_1: Path, toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(toy_root, tmp_path / "other.pth")
    assert exit_code("--encoder", str(tmp_path / "other.pth")) == 2
    printed = capsys.readouterr()
    assert said in printed.err and "Traceback" not in printed.err
    assert not (stage_1.parent / f"{TRAINER}__{toy.PLANS}__3d_fullres").exists()


def test_description_of_a_head_without_encoder_is_what_it_was() -> None:
    head = build_head("case", FeatureSpec((2, 3), (2,), 3), 3)
    assert set(head.options) == {
        "target_channels", "regions", "channels", "measured", "covariates", "known_cases", "dropout", "gradient",
    }  # fmt: skip
    assert not any(name.startswith("encoder.") for name in head.state_dict())
