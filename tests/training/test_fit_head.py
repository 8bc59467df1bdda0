"""The lesion head's last step: a logistic regression on whole volumes of the training cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from nnunet_3dct.networks.heads import FeatureSpec, build_head
from nnunet_3dct.networks.heads.lesion import LesionHead
from nnunet_3dct.networks.pooling import pooled_width
from nnunet_3dct.probe.features import FeatureExtractor
from nnunet_3dct.training import fit_head as head_refit
from nnunet_3dct.training.fit_head import attempt, fit_head, refit
from tests import toy

SPEC = FeatureSpec((3, 4), (3,), 3)


def problem(classes: list[int], n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Features of few clear and many useless columns, on very different scales; the last is a target's size."""
    rng = np.random.default_rng(0)
    y = rng.choice(classes, n)
    x = rng.normal(size=(n, pooled_width(SPEC))) * rng.uniform(0.1, 9, pooled_width(SPEC)) + 5
    x[:, 3] += 3 * y
    x[:, -1] = 8 + rng.normal(size=n)
    return x, y


def lesion_head(num_classes: int) -> LesionHead:
    head = build_head("lesion", SPEC, num_classes)
    assert isinstance(head, LesionHead)
    return head


@pytest.mark.parametrize(("num_classes", "classes"), [(2, [0, 1]), (3, [0, 1, 2]), (4, [1, 3]), (4, [0, 1, 3])])
def test_head_says_what_scikit_learn_says(num_classes: int, classes: list[int]) -> None:
    x, y = problem(classes)
    head = lesion_head(num_classes)
    strength = fit_head(head, x[:, None], y, [1.0 + k for k in range(num_classes)])
    scaler = StandardScaler().fit(x)
    reference = LogisticRegression(C=strength, class_weight={k: 1.0 + k for k in classes}, max_iter=5000)
    reference.fit(scaler.transform(x).clip(-5, 5), y)
    held_out, _ = problem(classes, 60)
    with torch.no_grad():
        probs = head.classify(torch.from_numpy(held_out).float()).softmax(1).numpy()
    np.testing.assert_allclose(
        probs[:, classes], reference.predict_proba(scaler.transform(held_out).clip(-5, 5)), atol=2e-3
    )
    assert probs[:, [k for k in range(num_classes) if k not in classes]].max(initial=0) < 1e-3


def test_a_class_with_a_single_case_is_fitted_without_cross_validation() -> None:
    x, y = problem([0, 1])
    y[:] = 0
    y[0] = 1
    assert fit_head(lesion_head(2), x[:, None], y, None) == 0.01


def test_final_checkpoint_holds_the_fit_and_best_checkpoint_the_head_of_the_patches(
    nnunet: Path, trained_results: Path, toy_root: Path, monkeypatch: pytest.MonkeyPatch
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

    monkeypatch.setattr(trainer, "fit_head_to_volumes", noted)
    fits: list[tuple[tuple[np.ndarray, np.ndarray], float]] = []

    def watched(head: LesionHead, pooled: np.ndarray, classes: np.ndarray, weights: object) -> float:
        fits.append(((pooled, classes), fit_head(head, pooled, classes, weights)))  # type: ignore[arg-type]
        return fits[0][1]

    monkeypatch.setattr(head_refit, "fit_head", watched)
    trainer.run_training()
    after = trainer.multitask_network.state_dict()
    changed = {k for k, v in before[0].items() if not torch.equal(v, after[k])}
    assert changed == {f"cls_head.{k}" for k in ("norm.mean", "norm.square", "classifier.weight", "classifier.bias")}

    extractor = FeatureExtractor(Path(trainer.output_folder_base), 0, "checkpoint_final.pth", None, torch.device("cpu"))
    training = sorted(c for c in toy.CASES if c not in toy.VALIDATION and trainer.class_labels.by_case[c] >= 0)
    cases = dict(extractor.extract(toy_root / "preprocessed" / toy.DATASET, training))
    (found, classes), _ = fits[0]
    assert found.shape[:2] == (len(training), 8)
    np.testing.assert_allclose(found[:, 0], np.stack([cases[c].pooled for c in training]), rtol=1e-4, atol=1e-4)
    assert classes.tolist() == [trainer.class_labels.by_case[c] for c in training]
    _, image = next(iter(trainer.volume_runner().volumes_of(training[:1])))
    mirrored, _, _ = extractor.pool(image.flip([2]))
    np.testing.assert_allclose(found[0, 2], mirrored, rtol=1e-4, atol=1e-4)
    assert np.abs(mirrored - found[0, 0]).max() > 1e-3


def test_views_of_a_case_count_together_as_much_as_one_case() -> None:
    x, y = problem([0, 1, 2])
    once, twice = lesion_head(3), lesion_head(3)
    strength = fit_head(once, x[:, None], y, None)
    assert fit_head(twice, np.stack((x, x), 1), y, None) == strength
    torch.testing.assert_close(twice.classifier.weight, once.classifier.weight, rtol=1e-2, atol=1e-3)


def test_views_without_target_do_not_count() -> None:
    x, y = problem([0, 1, 2])
    once, twice = lesion_head(3), lesion_head(3)
    blind = np.full_like(x, 99)
    blind[:, -1] = 0
    assert fit_head(once, x[:, None], y, None) == fit_head(twice, np.stack((x, blind), 1), y, None)
    torch.testing.assert_close(twice.classifier.weight, once.classifier.weight, rtol=1e-2, atol=1e-3)


def left_alone(head: LesionHead, pool: Callable[[], dict[str, np.ndarray]], classes: dict[str, int]) -> str:
    """What is said of a fit that leaves the head as it is."""
    before = {k: v.clone() for k, v in head.state_dict().items()}
    message = refit(head, pool, classes, "none", lambda value: [value])
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
    assert "left as trained on patches" in message
    return message


def test_head_stays_as_it_is_where_the_network_finds_no_target() -> None:
    x, y = problem([0, 1])
    x[1:, -1] = 0
    cases = {f"case_{n}": row[None] for n, row in enumerate(x)}
    message = left_alone(lesion_head(2), lambda: cases, {f"case_{n}": int(k) for n, k in enumerate(y)})
    assert "needs two cases of two classes" in message and "in each class" in message


def test_head_stays_as_it_is_where_the_fit_fails_midway() -> None:
    x, y = problem([0, 1])
    x[3, 0] = float("nan")
    cases = {f"case_{n}": row[None] for n, row in enumerate(x)}
    message = left_alone(lesion_head(2), lambda: cases, {f"case_{n}": int(k) for n, k in enumerate(y)})
    assert message.startswith("WARNING") and "ValueError" in message


def test_head_stays_as_it_is_where_another_process_has_failed() -> None:
    x, y = problem([0, 1])
    cases = {f"case_{n}": row[None] for n, row in enumerate(x)}

    def broken() -> dict[str, np.ndarray]:
        raise RuntimeError("CUDA out of memory")

    other = attempt(broken)
    head = lesion_head(2)
    before = head.classifier.weight.clone()
    message = refit(head, lambda: cases, dict(zip(cases, y.tolist(), strict=True)), "none", lambda own: [own, other])
    assert "CUDA out of memory" in message and torch.equal(head.classifier.weight, before)


def test_failing_fit_costs_neither_the_final_checkpoint_nor_the_validation(
    nnunet: Path, trained_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_1 = toy.trained_folder(trained_results, toy.STAGE1) / "fold_0" / "checkpoint_best.pth"
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(stage_1))

    def broken(*args: object) -> float:
        raise RuntimeError("MPS framework does not support float64")

    monkeypatch.setattr(head_refit, "fit_head", broken)
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

    monkeypatch.setattr(head_refit, "fit_head", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()
