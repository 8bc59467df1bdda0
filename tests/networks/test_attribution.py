"""Evidence in feature maps: of every head, in the right place, of the right amount."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnunet_3dct.errors import NNUNet3DCTError
from nnunet_3dct.networks.attribution import class_margin, hirescam, spread_over_patch
from nnunet_3dct.networks.heads import ClassificationHead, FeatureSpec, UNetFeatures, build_head
from nnunet_3dct.networks.heads.detached import DetachedHead
from tests.networks.test_battery import every_head, every_network, made, patch

SPEC = FeatureSpec((2, 3), (2,), 3)


def features(seed: int = 0, half: bool = False) -> UNetFeatures:
    generator = torch.Generator().manual_seed(seed)
    fine, coarse, decoded = (torch.randn(1, c, n, n, n, generator=generator) for c, n in ((2, 8), (3, 4), (2, 8)))
    logits = torch.zeros(1, 3, 8, 8, 8)
    logits[:, 0] = 9.0
    logits[:, 1, 2:5, 2:5, 2:5] = 18.0
    found = UNetFeatures([fine, coarse], [decoded], logits)
    return UNetFeatures([f.half() for f in found.encoder], [decoded.half()], logits) if half else found


def total(maps: list[Tensor]) -> Tensor:
    return torch.stack([found.flatten(1).sum(1) for found in maps]).sum(0)


class ReadsOnePlace(ClassificationHead):
    """Two classes; the second has what one cell of the bottleneck holds."""

    name = "one_place"

    def forward(self, features: UNetFeatures) -> Tensor:
        cell = features.encoder[-1].square()[:, :, 2, 1, 2].sum(1)
        return torch.stack((torch.zeros_like(cell), cell), 1)


class CutsTheGraph(DetachedHead):
    def summarize(self, features: UNetFeatures) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(part.detach() for part in super().summarize(features))


class LetsTheGraphBe(DetachedHead):
    def summarize(self, features: UNetFeatures) -> tuple[Tensor, ...]:
        return (features.encoder[-1].float().flatten(2).mean(2),)


class ReadsTheSegmentation(ClassificationHead):
    name = "segmentation"

    def forward(self, features: UNetFeatures) -> Tensor:
        return features.logits.flatten(2).mean(2)


class LeavesPytorch(ClassificationHead):
    name = "numpy"

    def forward(self, features: UNetFeatures) -> Tensor:
        return torch.from_numpy(features.encoder[-1].detach().numpy()[:, :2].mean((2, 3, 4)))


@every_head
@every_network
def test_every_head_has_evidence_and_keeps_its_answer(
    name: str, architecture: type[nn.Module], dim: int, stages: int, channels: int, classes: int
) -> None:
    network = made(name, architecture, dim, stages, channels, classes).eval()
    x = patch(dim, stages, channels)
    with torch.no_grad():
        _, found = network.segment_with_features(x)
        before = network.cls_head(found)
    evidence = spread_over_patch(network.cls_head.evidence(found, 1), x.shape[2:])
    assert evidence.shape == (2, *x.shape[2:]) and bool(torch.isfinite(evidence).all())
    assert all(bool(of_sample.any()) for of_sample in evidence)
    assert not evidence.requires_grad and all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        torch.testing.assert_close(network.cls_head(found), before, rtol=0, atol=1e-6)


def test_margin_is_that_of_the_softmax() -> None:
    logits = torch.tensor([[1.0, 4.0, -2.0]])
    assert float(class_margin(logits, 1)) == pytest.approx(4 - (1 - 2) / 2)
    torch.testing.assert_close(class_margin(logits + 100, 1), class_margin(logits, 1))


def test_evidence_of_a_linear_head_adds_up_to_its_margin_but_for_the_bias() -> None:
    head = build_head("simple", SPEC, 3).eval()
    for label in range(3):
        maps = head.evidence(features(), label)
        assert [found.shape for found in maps] == [(1, 4, 4, 4)]  # it reads the bottleneck alone
        expected = class_margin(head(features()) - head.classifier.bias, label)
        torch.testing.assert_close(total(maps), expected.detach())
        on_patch = spread_over_patch(maps, (8, 8, 8))
        torch.testing.assert_close(on_patch.sum(), expected.detach()[0])


def test_evidence_lies_where_the_head_reads() -> None:
    head = ReadsOnePlace(SPEC, 2)
    (found,) = hirescam(head, features(), 1)
    assert found.nonzero().tolist() == [[0, 2, 1, 2]]
    on_patch = spread_over_patch([found], (8, 8, 8))[0]
    peak = (on_patch > 0.99 * on_patch.max()).nonzero().float().mean(0)
    assert peak.tolist() == pytest.approx([4.5, 2.5, 4.5])
    assert float(total(hirescam(head, features(), 0))) == pytest.approx(-float(found.sum()))


def test_coarse_and_fine_maps_count_alike() -> None:
    fine, coarse = torch.zeros(1, 8, 8, 8), torch.zeros(1, 2, 4, 4)
    fine[0, 6, 1, 1] = 1.0
    coarse[0, 0, 3, 3] = 1.0
    found = spread_over_patch([fine, coarse], (8, 8, 8))[0]
    assert float(found.sum()) == pytest.approx(2.0, rel=1e-5)
    assert float(found[:5].sum()) > 0.8 and float(found[6, 1, 1]) == pytest.approx(1.0, rel=1e-3)
    torch.testing.assert_close(
        spread_over_patch([fine[:, 0], coarse[:, 0]], (8, 8)).sum(), torch.tensor(1.0), rtol=1e-5, atol=0
    )


def test_what_a_head_does_to_keep_gradients_from_the_network_is_no_hindrance() -> None:
    heads = []
    for kind in (LetsTheGraphBe, DetachedHead, CutsTheGraph):
        torch.manual_seed(0)
        heads.append(kind(SPEC, 3).eval())
    expected, *others = (head.evidence(features(), 2)[0] for head in heads)
    assert bool(expected.any())
    for found in others:
        torch.testing.assert_close(found, expected)
    leaf = features().encoder[-1].requires_grad_()
    for head in heads[1:]:  # and afterwards it does what it did
        logits = head(features()._replace(encoder=[leaf, leaf]))
        assert torch.autograd.grad(logits.sum(), leaf, allow_unused=True) == (None,)


def test_head_that_reads_the_segmentation_alone_has_its_evidence_there() -> None:
    (found,) = hirescam(ReadsTheSegmentation(SPEC, 3), features(), 1)
    assert found.shape == (1, 8, 8, 8)
    assert float(found[0, 2:5, 2:5, 2:5].min()) > float(found[0, 5:].max())


def test_head_without_gradient_is_named() -> None:
    with pytest.raises(NNUNet3DCTError, match=r"head 'numpy': expected class logits that have a gradient.*--explain"):
        LeavesPytorch(SPEC, 2).evidence(features(), 0)


def test_half_precision_features_lose_nothing_more() -> None:
    head = build_head("simple", SPEC, 3).eval()
    with torch.no_grad():
        head.classifier.weight.mul_(1e-6)  # gradients below the least of fp16
    (found,) = head.evidence(features(half=True), 0)
    rounded = features(half=True)
    (expected,) = head.evidence(rounded._replace(encoder=[f.float() for f in rounded.encoder]), 0)
    assert found.dtype == torch.float32 and bool((found != 0).any())
    torch.testing.assert_close(found, expected)


def lesion_head() -> ClassificationHead:
    """Fitted to other cases than the one that is looked at."""
    torch.manual_seed(3)
    head = build_head("lesion", SPEC, 3, target_channels=[1]).eval()
    head.norm.limit = 2.0
    with torch.no_grad():
        head.norm.set_statistics(torch.cat([head.summarize(features(seed))[0] for seed in range(1, 9)]))
        head.classifier.bias.copy_(torch.tensor([3.0, -1.0, 0.5]))
    return head


def test_evidence_of_the_lesion_head_adds_up_to_its_margin_but_for_size_and_bias() -> None:
    head = lesion_head()
    with torch.no_grad():
        (pooled,) = head.summarize(features())
        assert bool((head.norm(pooled).abs() == head.norm.limit * head.norm.scale).any())  # some are cut off
        for label in range(3):
            shares = head.norm(pooled) * class_margin(head.classifier.weight.T, label)
            expected = shares[:, :-1].sum(1)
            torch.testing.assert_close(total(head.evidence(features(), label)), expected, rtol=1e-4, atol=1e-5)
            bias = class_margin(head.classifier.bias[None], label)
            torch.testing.assert_close(shares.sum(1) + bias, class_margin(head(features()), label))


def test_what_a_case_shares_with_the_training_cases_is_no_evidence_for_the_lesion_head() -> None:
    head = lesion_head()
    (pooled,) = head.summarize(features())
    head.norm.set_statistics(pooled)
    assert float(total(head.evidence(features(), 0)).abs()) < 1e-4
    assert float(total(hirescam(head, features(), 0)).abs()) > 0.1  # gradient times activation takes it for evidence


def test_evidence_of_the_lesion_head_lies_under_the_target() -> None:
    fine = lesion_head().evidence(features(), 1)[0].abs()
    inside = torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    inside[:, 2:5, 2:5, 2:5] = True
    assert float(fine[inside].mean()) > 10 * float(fine[~inside].mean())
