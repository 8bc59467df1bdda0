"""The lesion head looks where the network sees the target."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_3dct.networks.heads import FeatureSpec, UNetFeatures, build_head
from nnunet_3dct.networks.pooling import pool_features

SPEC = FeatureSpec(encoder_channels=(3, 4), decoder_channels=(3,), dim=3)


def _features(value_in_target: float, logits: torch.Tensor, inside: torch.Tensor) -> UNetFeatures:
    """Constant features but for the target, where the finest stages hold ``value_in_target``."""
    fine = torch.ones(1, 3, 8, 8, 8)
    fine[:, :, inside] = value_in_target
    return UNetFeatures([fine, torch.ones(1, 4, 4, 4, 4)], [fine.clone()], logits)


def _logits(inside: torch.Tensor) -> torch.Tensor:
    logits = torch.zeros(1, 3, 8, 8, 8)
    logits[:, 0] = 8.0
    logits[:, 0, inside], logits[:, 2, inside] = 0.0, 8.0
    return logits


def test_masked_average_is_the_mean_of_the_features_in_the_target() -> None:
    inside = torch.zeros(8, 8, 8, dtype=torch.bool)
    inside[2:4, 2:4, 2:4] = True
    head = build_head("lesion", SPEC, 3, target_channels=[2]).eval()
    seen: list[torch.Tensor] = []
    head.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head(_features(5.0, _logits(inside), inside))
    masked_finest, spread, global_finest = seen[0][0, :9].split(3)
    torch.testing.assert_close(masked_finest, torch.full((3,), 5.0), atol=1e-2, rtol=0)
    torch.testing.assert_close(spread, torch.zeros(3), atol=0.05, rtol=0)
    torch.testing.assert_close(global_finest, torch.full((3,), 1 + 4 * 8 / 512))
    assert float(seen[0][0, -1]) == pytest.approx(np.log2(1 + 8), abs=0.02)  # voxels of the target


def test_spread_is_the_standard_deviation_in_the_target() -> None:
    inside = torch.zeros(8, 8, 8, dtype=torch.bool)
    inside[2:6, 2:6, 2:6] = True
    features = _features(0.0, _logits(inside), inside)
    values = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    features.encoder[0][0, :, inside] = values
    pooled = pool_features(features, [2], regions=False)
    torch.testing.assert_close(pooled[0, 3:6], values.std(1, correction=0), atol=0.02, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_gradient_reaches_features_by_its_share_and_never_the_segmentation(share: float) -> None:
    inside = torch.zeros(8, 8, 8, dtype=torch.bool)
    inside[2:4] = True
    gradients = []
    for gradient in (1.0, share):
        torch.manual_seed(0)
        logits = _logits(inside).requires_grad_()
        features = _features(2.0, logits, inside)
        features.encoder[0].requires_grad_()
        head = build_head("lesion", SPEC, 3, target_channels=[2], gradient=gradient).eval()
        head(features).square().sum().backward()
        assert logits.grad is None and head.classifier.weight.grad is not None
        gradients.append(features.encoder[0].grad)
    assert gradients[0] is not None and gradients[0].abs().sum() > 0
    if share:
        torch.testing.assert_close(gradients[1], share * gradients[0])
    else:
        assert gradients[1] is None


def test_place_of_the_target_does_not_matter() -> None:
    head = build_head("lesion", SPEC, 3, target_channels=[2]).eval()
    results = []
    for start in (0, 4):
        inside = torch.zeros(8, 8, 8, dtype=torch.bool)
        inside[start : start + 2, :4, :4] = True
        results.append(head(_features(3.0, _logits(inside), inside)))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


def test_patch_without_any_target_gives_finite_logits() -> None:
    logits = torch.zeros(1, 3, 8, 8, 8)
    logits[:, 0] = 200.0
    head = build_head("lesion", SPEC, 3, target_channels=[2])
    assert torch.isfinite(head(_features(1.0, logits, torch.zeros(8, 8, 8, dtype=torch.bool)))).all()
