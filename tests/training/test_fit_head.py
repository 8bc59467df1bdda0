"""The case head's last step: a linear classifier on whole volumes of the training cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_3dct.inference.measurements import measurement_names
from nnunet_3dct.networks.heads import FeatureSpec, build_head
from nnunet_3dct.networks.heads.case import CaseHead
from nnunet_3dct.training import fit_head as head_refit
from nnunet_3dct.training.fit_head import KnownCases, attempt, case_table, fitted_head, refit
from nnunet_3dct.training.head_choice import choose
from tests import toy

SPEC = FeatureSpec((3, 4), (3,), 3)
SIZE = 3 * (3 + 4 + 3)  # column of the target's size


def case_head(num_classes: int) -> CaseHead:
    head = build_head("case", SPEC, num_classes, measured=measurement_names(1))
    assert isinstance(head, CaseHead)
    return head


def problem(classes: list[int], n: int = 40, seed: int = 0) -> tuple[dict[str, np.ndarray], KnownCases]:
    """Features of few clear and many useless columns, on very different scales; all cases show the target."""
    rng = np.random.default_rng(seed)
    width = len(case_head(2).layout.names)
    y = np.resize(classes, n)
    x = rng.normal(size=(n, width)) * np.random.default_rng(0).uniform(0.1, 9, width) + 5
    x[:, 1] += 30 * y
    x[:, SIZE + 1] -= 30 * y
    x[:, SIZE] = 8 + rng.random(n)
    cases = [f"case_{k:03d}" for k in range(n)]
    return dict(zip(cases, x, strict=True)), KnownCases(dict(zip(cases, y.tolist(), strict=True)), {})


def fitted(num_classes: int, features: dict[str, np.ndarray], known: KnownCases) -> tuple[CaseHead, str]:
    done = refit(case_head(num_classes), lambda: features, known, "balanced", lambda own: [own])
    assert done.head is not None, done.message
    return done.head, done.message


@pytest.mark.parametrize(("num_classes", "classes"), [(2, [0, 1]), (3, [0, 1, 2]), (4, [1, 3]), (4, [0, 1, 3])])
def test_head_says_what_the_choice_says(num_classes: int, classes: list[int]) -> None:
    features, known = problem(classes)
    head, message = fitted(num_classes, features, known)
    assert f"whole volumes of {len(features)} training cases" in message
    table = case_table(features, known, head)
    choice = choose(table, head.layout, num_classes)
    new, truth = problem(classes, 60, seed=1)
    rows = np.stack(list(new.values()))
    with torch.no_grad():
        logits = head.classify_case(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(logits, choice.logits(rows), atol=1e-2)
    assert (logits.argmax(1) == [*truth.classes.values()]).mean() > 0.9
    absent = [k for k in range(num_classes) if k not in classes]
    assert torch.from_numpy(logits).softmax(1).numpy()[:, absent].max(initial=0) < 1e-3


def test_a_measurement_that_is_missing_counts_as_average() -> None:
    features, known = problem([0, 1, 2])
    head, _ = fitted(3, features, known)
    row = torch.from_numpy(features["case_000"])
    missing, average = row.clone(), row.clone()
    missing[SIZE + 1 :] = float("nan")
    average[SIZE + 1 :] = head.norm.mean[SIZE + 1 :].double()
    torch.testing.assert_close(head.classify_case(missing[None]), head.classify_case(average[None]))


def test_contributions_add_up_to_the_margin_with_the_bias() -> None:
    features, known = problem([0, 1, 2])
    head, _ = fitted(3, features, known)
    row = torch.from_numpy(features["case_004"]).float()
    logits = head.classify_case(row[None])[0]
    bias = head.classifier.bias
    for label in range(3):
        others = [k for k in range(3) if k != label]
        margin = logits[label] - logits[others].mean()
        of_bias = bias[label] - bias[others].mean()
        torch.testing.assert_close(head.contributions(row, label).sum() + of_bias, margin, rtol=1e-3, atol=1e-3)


def test_cases_of_the_kind_are_familiar_and_others_are_not() -> None:
    features, known = problem([0, 1, 2], 80)
    head, _ = fitted(3, features, known)
    same = torch.from_numpy(np.stack(list(problem([0, 1, 2], 100, seed=5)[0].values())))
    assert (head.strangeness(same) > 1).float().mean() < 0.15
    assert (head.strangeness(same + 60) > 1).all() and (head.strangeness(-same) > 1).all()


def left_alone(head: CaseHead, columns: Callable[[], dict[str, np.ndarray]], known: KnownCases) -> str:
    """What is said of a fit that leaves the head as it is."""
    before = {k: v.clone() for k, v in head.state_dict().items()}
    done = refit(head, columns, known, "none", lambda value: [value])
    assert done.head is None and all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
    assert "left as trained on patches" in done.message
    return done.message


def test_head_stays_as_it_is_where_the_network_finds_no_target() -> None:
    features, known = problem([0, 1])
    for case in list(features)[1:]:
        features[case][SIZE] = 0
    message = left_alone(case_head(2), lambda: features, known)
    assert "needs two cases of two classes" in message and "in each class" in message


def test_head_stays_as_it_is_where_the_fit_fails_midway(monkeypatch: pytest.MonkeyPatch) -> None:
    features, known = problem([0, 1])

    def broken(*args: object) -> None:
        raise ValueError("singular")

    monkeypatch.setattr(head_refit, "learn_familiarity", broken)
    message = left_alone(case_head(2), lambda: features, known)
    assert message.startswith("WARNING") and "ValueError: singular" in message


def test_head_stays_as_it_is_where_another_process_has_failed() -> None:
    features, known = problem([0, 1])

    def broken() -> dict[str, np.ndarray]:
        raise RuntimeError("CUDA out of memory")

    other = attempt(broken)
    head = case_head(2)
    before = head.classifier.weight.clone()
    done = refit(head, lambda: features, known, "none", lambda own: [own, other])
    assert done.head is None and "CUDA out of memory" in done.message and torch.equal(head.classifier.weight, before)


def test_final_checkpoint_holds_the_fit_and_best_checkpoint_the_head_of_the_patches(
    nnunet: Path, trained_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_1 = toy.trained_folder(trained_results, toy.STAGE1) / "fold_0" / "checkpoint_best.pth"
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(stage_1))
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadLesion")
    trainer.initialize()
    before: list[dict[str, torch.Tensor]] = []
    fit_to_volumes = trainer.fit_head_to_volumes

    def noted() -> None:
        before.append({k: v.clone() for k, v in trainer.multitask_network.state_dict().items()})
        fit_to_volumes()

    tables: list[object] = []

    def watched(head: CaseHead, choice: object, table: object, unseen: np.ndarray) -> CaseHead:
        tables.append(table)
        assert len(unseen) == len(toy.VALIDATION)
        return fitted_head(head, choice, table, unseen)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "fit_head_to_volumes", noted)
    monkeypatch.setattr(head_refit, "fitted_head", watched)
    trainer.run_training()
    after = trainer.multitask_network.state_dict()
    changed = {k for k, v in before[0].items() if v.shape != after[k].shape or not torch.equal(v, after[k])}
    fitted = {f"cls_head.{k}" for k in ("norm.mean", "norm.square", "classifier.weight", "classifier.bias")}
    assert fitted <= changed and all(
        k in fitted or k.startswith(("cls_head.familiarity.", "cls_head.norm.")) for k in changed
    )
    training = sorted(c for c in toy.CASES if c not in toy.VALIDATION and trainer.class_labels.by_case[c] >= 0)
    assert list(tables[0].cases) == training  # type: ignore[attr-defined]
    final = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=True)
    assert final["cls_head_config"]["options"]["known_cases"][0] > 0


def test_failing_fit_costs_neither_the_final_checkpoint_nor_the_validation(
    nnunet: Path, trained_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_1 = toy.trained_folder(trained_results, toy.STAGE1) / "fold_0" / "checkpoint_best.pth"
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(stage_1))

    def broken(*args: object) -> float:
        raise RuntimeError("MPS framework does not support float64")

    monkeypatch.setattr(head_refit, "fitted_head", broken)
    toy.train("nnUNetTrainer_CLSHeadLesion")
    fold = toy.trained_folder(nnunet, "nnUNetTrainer_CLSHeadLesion") / "fold_0"
    final, best = (torch.load(fold / f"checkpoint_{name}.pth", weights_only=True) for name in ("final", "best"))
    assert final["current_epoch"] == 2 and final["cls_head_state"].keys() == best["cls_head_state"].keys()
    (log,) = fold.glob("training_log_*.txt")
    assert "left as trained on patches. RuntimeError: MPS framework does not support float64" in log.read_text()
    assert (fold / "validation" / "classification_metrics.json").is_file()


def test_training_that_is_killed_during_the_fit_has_its_final_checkpoint(
    nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toy.get_trainer("nnUNetTrainer_CLSHeadLesion")

    def killed(*args: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(head_refit, "fitted_head", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()
