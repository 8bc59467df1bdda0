"""The final validation scores what it predicted, and nothing that an earlier training left in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_3dct.training.class_validation import ASIDE, set_aside_other_cases
from tests import toy


def test_results_of_an_older_split_do_not_count(model: Path) -> None:
    fold = model / "fold_0"
    stale = toy.TRAINING[0]
    (fold / "validation").mkdir(exist_ok=True)
    report = {"logits": [0, 0, 9], "probs": [0, 0, 1], "pred": 2, "num_classes": 3, "produced_by": {}}
    (fold / "validation" / f"{stale}_classification.json").write_text(json.dumps(report))
    (fold / "validation" / f"{stale}.nii.gz").write_bytes(b"a segmentation of another training")
    toy.train(toy.FINE_TUNING, only_run_validation=True)
    metrics = json.loads((fold / "validation" / "classification_metrics.json").read_text())
    assert metrics["n_samples"] == len(toy.VALIDATION)
    assert stale in metrics["labels_without_prediction"]
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(toy.VALIDATION)
    aside = sorted(path.name for path in (fold / "validation" / ASIDE).iterdir())
    assert aside == [f"{stale}.nii.gz", f"{stale}_classification.json"]
    logs = [log.read_text() for log in fold.glob("training_log_*.txt")]
    assert any(f"moved to {fold / 'validation' / ASIDE}: {stale}" in log for log in logs)


def test_labels_that_change_during_a_training_do_not_change_its_score(
    model: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = toy.use_labels(monkeypatch, toy_root, tmp_path / "pre", toy.CLASSES)
    trainer = toy.get_trainer(toy.FINE_TUNING, resume=True)
    (changed / toy.DATASET / "classification.json").write_text("{")
    trainer.perform_actual_validation(False)
    metrics = json.loads((model / "fold_0" / "validation" / "classification_metrics.json").read_text())
    assert metrics["n_samples"] == len(toy.VALIDATION)


def test_files_of_the_fold_and_tables_stay(tmp_path: Path) -> None:
    names = ["a.nii.gz", "a.npz", "a.pkl", "a_classification.json", "summary.json", "subtype_results.csv", "b.npz"]
    for name in names:
        (tmp_path / name).touch()
    said = set_aside_other_cases(tmp_path, {"a": 0}, ".nii.gz")
    assert said is not None and said.endswith(": b")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names[:-1], ASIDE])
    assert set_aside_other_cases(tmp_path, {"a": 0}, ".nii.gz") is None
