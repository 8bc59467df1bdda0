"""``nnUNet3DCT_probe`` on the toys: real networks, preprocessed volumes, the fold's own head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_3dct.cli import probe as command
from nnunet_3dct.probe.features import FeatureExtractor
from tests import toy


@pytest.fixture(scope="module")
def fine_tuned(trained_results: Path) -> Path:
    return toy.trained_folder(trained_results, toy.FINE_TUNING)


def run(model: Path, out: Path, *more: str) -> dict:
    trainer, plans, configuration = model.name.split("__")
    flags = ["-d", toy.DATASET, "-tr", trainer, "-p", plans, "-c", configuration, "-device", "cpu", "-o", str(out)]
    command.main([*flags, "--disable_progress_bar", *more])
    return json.loads(out.read_text())


def test_head_is_scored_as_training_scored_it_and_every_rival_stands_beside(
    fine_tuned: Path, nnunet: Path, trained_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("nnUNet_results", str(trained_results))
    result = run(fine_tuned, tmp_path / "probe.json", "-f", "0")
    assert list(result["scores"]) == [
        "the network's head",
        "LDA, network features",
        "logistic regression, network features",
        "LDA, intensity and shape of the target",
        "logistic regression, intensity and shape of the target",
    ]
    checkpoint = torch.load(fine_tuned / "fold_0" / "checkpoint_final.pth", weights_only=True)
    logged = checkpoint["logging"]  # the same network, volumes and windows, after the last epoch
    head = result["scores"]["the network's head"]
    assert head["f1_macro"] == pytest.approx(logged["cls_f1_macro"][-1])
    probs = [result["probabilities"]["the network's head"][case] for case in toy.VALIDATION]
    loss = -np.mean([np.log(p[toy.CLASSES[case]]) for p, case in zip(probs, toy.VALIDATION, strict=True)])
    assert loss == pytest.approx(logged["cls_val_losses"][-1], rel=1e-4)
    assert (result["n_training"], result["n_validation"]) == ([6], 3)
    printed = capsys.readouterr().out
    assert "LDA, network features" in printed and str(tmp_path / "probe.json") in printed


def test_network_without_head_is_probed_too(
    trained_results: Path, nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_results", str(trained_results))
    result = run(toy.trained_folder(trained_results, toy.STAGE1), tmp_path / "p.json", "--target_labels", "lesion")
    assert len(result["scores"]) == 4 and "the network's head" not in result["scores"]


def test_features_of_a_volume_of_several_windows_are_weighted_by_the_target(
    fine_tuned: Path, toy_root: Path, nnunet: Path
) -> None:
    extractor = FeatureExtractor(fine_tuned, 0, "checkpoint_final.pth", None, torch.device("cpu"))
    preprocessed = toy_root / "preprocessed" / toy.DATASET
    found = dict(extractor.extract(preprocessed, toy.VALIDATION[:1]))[toy.VALIDATION[0]]
    windows = extractor._recorder.passes
    weights = np.array([float(v) for _, _, v in windows])
    assert len(windows) == 4 and weights.any() and len(set(weights)) > 1
    expected = np.average(np.stack([p[0].numpy() for p, _, _ in windows]), axis=0, weights=weights)
    np.testing.assert_allclose(found.pooled, expected)
    np.testing.assert_allclose(found.head_probs.sum(), 1)


def test_validation_cases_that_the_network_was_trained_on_are_refused(
    fine_tuned: Path, nnunet: Path, trained_results: Path, toy_root: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    splits = [{"train": toy.CASES[3:], "val": toy.CASES[:3]}]
    changed = toy.with_changed_files(toy_root / "preprocessed", tmp_path / "pre", splits_final=splits)
    monkeypatch.setenv("nnUNet_preprocessed", str(changed))
    monkeypatch.setenv("nnUNet_results", str(trained_results))
    with pytest.raises(SystemExit):
        run(fine_tuned, tmp_path / "p.json", "-f", "0")
    assert "found toy_000, toy_001, toy_002 among those it was trained on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["-f", "3"], "-f 3: expected a fold from 0 to 0"),
        (["-chk", "checkpoint_none.pth"], "checkpoint_none.pth"),
        (["--target_labels", "lession"], "lession"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    more: list[str], words: str, fine_tuned: Path, nnunet: Path, trained_results: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("nnUNet_results", str(trained_results))
    with pytest.raises(SystemExit) as stopped:
        run(fine_tuned, tmp_path / "p.json", *more)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and words in error and error.startswith("error: ")
    assert not (tmp_path / "p.json").exists()
