from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.training.class_loss import as_tensor, class_loss, class_weights

CLASSES = torch.tensor([0, 2, -1, 1, 2, 0])
SHOWS = torch.tensor([True, True, True, False, True, False])
COUNTED = [0, 1, 4]


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 3.0])])
def test_is_cross_entropy_of_the_samples_that_count(weight: torch.Tensor | None) -> None:
    x = logits()
    loss, counts = class_loss(x, CLASSES, SHOWS, weight)
    torch.testing.assert_close(loss, functional.cross_entropy(x[COUNTED], CLASSES[COUNTED], weight))
    assert counts.nonzero().flatten().tolist() == COUNTED


def test_unknown_class_and_patches_without_target_add_nothing() -> None:
    first, second = logits(0), logits(1)
    with torch.no_grad():
        second[COUNTED] = first[COUNTED]
    loss, _ = class_loss(first, CLASSES, SHOWS)
    assert torch.equal(loss, class_loss(second, CLASSES, SHOWS)[0])
    loss.backward()
    rows = first.grad.abs().sum(1)
    assert (rows > 0).nonzero().flatten().tolist() == COUNTED


@pytest.mark.parametrize(
    ("classes", "shows"),
    [(torch.full((6,), -1), torch.ones(6)), (CLASSES, torch.zeros(6))],
    ids=["unknown", "no target"],
)
def test_without_any_counted_sample_the_gradient_is_zero_not_missing(
    classes: torch.Tensor, shows: torch.Tensor
) -> None:
    layer = torch.nn.Linear(4, 3)
    loss, counts = class_loss(layer(torch.randn(6, 4)), classes, shows.bool())
    loss.backward()
    assert loss.item() == 0 and not bool(counts.any())
    assert all(p.grad is not None and not bool(p.grad.any()) for p in layer.parameters())


def test_half_precision_logits_give_the_loss_of_the_same_numbers_in_float() -> None:
    half = logits().detach().half()
    found = class_loss(half, CLASSES, SHOWS)[0]
    assert found.dtype == torch.float32 and torch.equal(found, class_loss(half.float(), CLASSES, SHOWS)[0])


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    counts = [62, 106, 84]
    y = np.repeat([0, 1, 2], counts)
    np.testing.assert_allclose(
        class_weights("balanced", counts), compute_class_weight("balanced", classes=np.unique(y), y=y)
    )


def test_class_without_a_training_case_gets_no_weight_and_leaves_the_others_alone() -> None:
    np.testing.assert_allclose(class_weights("balanced", [4, 0, 12]), [2, 0, 2 / 3])


def test_weights_may_be_given_or_left_out() -> None:
    assert class_weights("none", [1, 2]) is None
    assert as_tensor(None, torch.device("cpu")) is None
    assert class_weights((1.0, 2.5), [1, 2]) == [1.0, 2.5]
    assert torch.equal(as_tensor([1.0, 2.5], torch.device("cpu")), torch.tensor([1.0, 2.5]))


@pytest.mark.parametrize("choice", ["inverse", (1.0, 2.0)])
def test_wrong_number_of_weights_is_refused(choice: object) -> None:
    with pytest.raises(SettingsError, match=r"NNUNETV2_MT_CLASS_WEIGHTS: expected 3 weights.*found"):
        class_weights(choice, [1, 2, 3])  # type: ignore[arg-type]


def test_focal_loss_is_that_of_its_paper() -> None:
    x = logits()
    weight = torch.tensor([0.5, 1.0, 3.0])
    p = x[COUNTED].softmax(1)[range(3), CLASSES[COUNTED]]
    alpha = weight[CLASSES[COUNTED]]
    expected = (-alpha * (1 - p) ** 2 * p.log()).sum() / alpha.sum()
    torch.testing.assert_close(class_loss(x, CLASSES, SHOWS, weight, focal_gamma=2)[0], expected)


def test_focal_loss_with_exponent_zero_is_cross_entropy_and_its_gradient_stays_finite_at_certainty() -> None:
    x = logits()
    assert torch.equal(class_loss(x, CLASSES, SHOWS, focal_gamma=0)[0], class_loss(x, CLASSES, SHOWS)[0])
    certain = torch.tensor([[60.0, 0.0, 0.0]]).requires_grad_()
    loss, _ = class_loss(certain, torch.tensor([0]), torch.tensor([True]), focal_gamma=0.5)
    loss.backward()
    assert bool(torch.isfinite(certain.grad).all())


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 3.0])])
def test_label_smoothing_is_torchs(weight: torch.Tensor | None) -> None:
    x = logits()
    expected = functional.cross_entropy(x[COUNTED], CLASSES[COUNTED], weight, label_smoothing=0.1)
    torch.testing.assert_close(class_loss(x, CLASSES, SHOWS, weight, label_smoothing=0.1)[0], expected)
