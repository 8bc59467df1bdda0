from __future__ import annotations

import itertools

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_3dct.networks.heads import build_head
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, feature_spec

FEATURES = (4, 6, 8, 10, 12, 14)
ARCHITECTURES = [PlainConvUNet, ResidualEncoderUNet]
NETWORKS = [
    *itertools.product(ARCHITECTURES, (2, 3), (True, False), (3, 6)),
    (PlainConvUNet, 3, True, 4),
    (ResidualEncoderUNet, 2, False, 5),
]


def stock_unet(
    architecture: type[nn.Module],
    dim: int,
    deep_supervision: bool,
    stages: int,
    channels: int = 1,
    seed: int = 0,
) -> nn.Module:
    """nnU-Net's network; in 3D only the first two strides divide the first axis."""
    torch.manual_seed(seed)
    strides = [[1] * dim] + [[2 if dim == 2 or n < 2 else 1] + [2] * (dim - 1) for n in range(stages - 1)]
    blocks = "n_conv_per_stage" if architecture is PlainConvUNet else "n_blocks_per_stage"
    return architecture(
        input_channels=channels,
        n_stages=stages,
        features_per_stage=FEATURES[:stages],
        conv_op=nn.Conv3d if dim == 3 else nn.Conv2d,
        kernel_sizes=3,
        strides=strides,
        num_classes=3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d if dim == 3 else nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
        **{blocks: 1},
    )


def with_head(unet: nn.Module, num_classes: int = 3) -> MultiTaskUNet:
    torch.manual_seed(1)
    return MultiTaskUNet(unet, build_head("grid", feature_spec(unet), num_classes, grid=2))


def patch(dim: int, stages: int, channels: int = 1, batch: int = 2) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(batch, channels, *((8,) if dim == 3 else ()), 2**stages, 2**stages)


def assert_same(found: torch.Tensor | list[torch.Tensor], expected: torch.Tensor | list[torch.Tensor]) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert len(found) == len(expected)
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("architecture", "dim", "deep_supervision", "stages"), NETWORKS)
def test_segmentation_equals_stock_network_bit_for_bit(
    architecture: type[nn.Module], dim: int, deep_supervision: bool, stages: int
) -> None:
    stock = stock_unet(architecture, dim, deep_supervision, stages)
    network = with_head(stock_unet(architecture, dim, deep_supervision, stages, seed=5))
    network.load_state_dict(network.join_state_dicts(stock.state_dict(), network.cls_head.state_dict()))
    x = patch(dim, stages)
    with torch.no_grad():
        expected = stock(x)
        assert_same(network(x), expected)
        segmentation, class_logits = network(x, return_cls=True)
    assert_same(segmentation, expected)
    assert class_logits.shape == (2, 3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_deep_supervision_can_be_switched_as_nnunet_does(architecture: type[nn.Module], deep_supervision: bool) -> None:
    network = with_head(stock_unet(architecture, 2, not deep_supervision, 4))
    network.decoder.deep_supervision = deep_supervision
    x = patch(2, 4)
    with torch.no_grad():
        assert_same(network(x), stock_unet(architecture, 2, deep_supervision, 4)(x))
        assert_same(network(x, return_cls=True)[0], network(x))


@pytest.mark.parametrize(("channels", "num_classes", "batch"), [(1, 2, 1), (2, 3, 2), (4, 7, 3)])
@pytest.mark.parametrize("dim", [2, 3])
def test_any_channels_classes_and_batch(channels: int, num_classes: int, batch: int, dim: int) -> None:
    network = with_head(stock_unet(PlainConvUNet, dim, False, 3, channels), num_classes)
    segmentation, class_logits = network(patch(dim, 3, channels, batch), return_cls=True)
    assert segmentation.shape[:2] == (batch, 3)
    assert class_logits.shape == (batch, num_classes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_state_has_stock_names_and_loads_strictly_into_stock_network(architecture: type[nn.Module]) -> None:
    stock = stock_unet(architecture, 3, True, 4)
    network = with_head(stock_unet(architecture, 3, True, 4, seed=5))
    state = network.unet_state_dict()
    assert list(state) == list(stock.state_dict())
    stock.load_state_dict(state, strict=True)
    x = patch(3, 4)
    with torch.no_grad():
        assert_same(stock(x), network(x))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dim", [2, 3])
def test_class_loss_reaches_encoder_decoder_and_head(architecture: type[nn.Module], dim: int) -> None:
    network = with_head(stock_unet(architecture, dim, True, 4))
    _, class_logits = network(patch(dim, 4), return_cls=True)
    nn.functional.cross_entropy(class_logits, torch.tensor([0, 2])).backward()
    for name, part in (
        ("encoder", network.encoder.stages),
        ("decoder", network.decoder.stages),
        ("upsampling", network.decoder.transpconvs),
        ("head", network.cls_head),
    ):
        for parameter in (p for n, p in part.named_parameters() if n.endswith("weight")):
            assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


def test_both_losses_leave_no_parameter_without_gradient() -> None:
    network = with_head(stock_unet(ResidualEncoderUNet, 2, True, 4))
    segmentation, class_logits = network(patch(2, 4), return_cls=True)
    (sum(s.square().mean() for s in segmentation) + class_logits.square().mean()).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())] == []


def test_segmentation_alone_does_not_run_the_head() -> None:
    network = with_head(stock_unet(PlainConvUNet, 2, True, 3))
    sum(s.sum() for s in network(patch(2, 3))).backward()
    assert all(p.grad is None for p in network.cls_head.parameters())


@pytest.mark.parametrize(("architecture", "dim", "deep_supervision", "stages"), NETWORKS)
def test_feature_spec_is_read_from_the_network(
    architecture: type[nn.Module], dim: int, deep_supervision: bool, stages: int
) -> None:
    spec = feature_spec(stock_unet(architecture, dim, deep_supervision, stages))
    assert spec.encoder_channels == FEATURES[:stages]
    assert spec.decoder_channels == FEATURES[: stages - 1][::-1]
    assert spec.dim == dim
