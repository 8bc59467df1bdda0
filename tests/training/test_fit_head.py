"""The lesion head's last step: a logistic regression on whole volumes of the training cases."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

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
from nnunet_3dct.training.fit_head import HeadRefit, fit_head
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
    refit = trainer.refit_head

    def noted() -> None:
        before.append({k: v.clone() for k, v in trainer.multitask_network.state_dict().items()})
        refit()

    monkeypatch.setattr(trainer, "refit_head", noted)
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
    image = torch.as_tensor(np.asarray(trainer.whole_volumes(training[:1]).load_case(training[0])[0][:]))
    extractor._predictor.predict_sliding_window_return_logits(image.flip([2]))
    mirrored = extractor._recorder.result()[0]
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


def test_head_stays_as_it_is_where_the_network_finds_no_target() -> None:
    head, messages = lesion_head(2), []
    before = {k: v.clone() for k, v in head.state_dict().items()}
    x, y = problem([0, 1])
    x[1:, -1] = 0
    cases = {f"case_{n}": row[None] for n, row in enumerate(x)}
    trainer = SimpleNamespace(
        _gather=lambda value: [value],
        _pooled_training_cases=lambda: cases,
        class_labels=SimpleNamespace(by_case={f"case_{n}": k for n, k in enumerate(y)}),
        num_classes=2,
        multitask_network=SimpleNamespace(cls_head=head),
        print_to_log_file=messages.append,
    )
    HeadRefit.refit_head(trainer)  # type: ignore[arg-type]
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
    assert "left as trained" in messages[0] and "in each class" in messages[0]
