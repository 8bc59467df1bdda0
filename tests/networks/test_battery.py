"""Every head on real networks: plain and residual, 2D and 3D, three to seven stages, one to four channels."""

from __future__ import annotations

import io

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_3dct.networks.heads import build_head, head_names
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, feature_spec

FEATURES = (4, 6, 8, 10, 12, 12, 12)
# architecture, dimension, stages, input channels, classes
NETWORKS = [
    (PlainConvUNet, 3, 3, 1, 2),
    (PlainConvUNet, 3, 6, 2, 3),
    (ResidualEncoderUNet, 3, 4, 4, 10),
    (ResidualEncoderUNet, 3, 7, 1, 3),
    (PlainConvUNet, 2, 7, 3, 5),
    (ResidualEncoderUNet, 2, 5, 1, 2),
]
OPTIONS = {"memory_attention": {"width": 32, "memory": 10, "depth": 2, "attention_heads": 4}}
every_head = pytest.mark.parametrize("name", head_names())
every_network = pytest.mark.parametrize(("architecture", "dim", "stages", "channels", "classes"), NETWORKS)


def made(
    name: str, architecture: type[nn.Module], dim: int, stages: int, channels: int, classes: int, seed: int = 0
) -> MultiTaskUNet:
    """nnU-Net's network of anisotropic strides with a head."""
    torch.manual_seed(seed)
    blocks = "n_conv_per_stage" if architecture is PlainConvUNet else "n_blocks_per_stage"
    unet = architecture(
        input_channels=channels,
        n_stages=stages,
        features_per_stage=FEATURES[:stages],
        conv_op=nn.Conv3d if dim == 3 else nn.Conv2d,
        kernel_sizes=3,
        strides=[[1] * dim] + [[2 if dim == 2 or n < 2 else 1] + [2] * (dim - 1) for n in range(stages - 1)],
        num_classes=3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d if dim == 3 else nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **{blocks: 1},
    )
    return MultiTaskUNet(unet, build_head(name, feature_spec(unet), classes, **OPTIONS.get(name, {})))


def patch(dim: int, stages: int, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, channels, *((8,) if dim == 3 else ()), *[2**stages] * 2, generator=generator)


@every_head
@every_network
def test_both_losses_reach_every_parameter_that_the_head_lets_them(
    name: str, architecture: type[nn.Module], dim: int, stages: int, channels: int, classes: int
) -> None:
    network = made(name, architecture, dim, stages, channels, classes)
    segmentation, logits = network(patch(dim, stages, channels), return_cls=True)
    assert logits.shape == (2, classes) and len(segmentation) == stages - 1
    loss = sum(s.square().mean() for s in segmentation) + nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    loss.backward()
    bad = [n for n, p in network.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())]
    assert bad == []


@every_head
@every_network
def test_autocast_stays_finite_and_so_does_the_gradient_of_the_head(
    name: str, architecture: type[nn.Module], dim: int, stages: int, channels: int, classes: int
) -> None:
    network = made(name, architecture, dim, stages, channels, classes)
    x = patch(dim, stages, channels)
    with torch.autocast("cpu", torch.bfloat16):
        segmentation, found = network(x, return_cls=True)
        nn.functional.cross_entropy(found.float(), torch.tensor([0, 1])).backward()
    assert all(bool(torch.isfinite(s).all()) for s in (*segmentation, found))
    # the network's own bf16 gradients on the CPU are not always finite, which is why training there is fp32
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.cls_head.parameters())


@every_head
@every_network
def test_saved_and_loaded_network_gives_the_same_outputs(
    name: str, architecture: type[nn.Module], dim: int, stages: int, channels: int, classes: int
) -> None:
    network = made(name, architecture, dim, stages, channels, classes).eval()
    stream = io.BytesIO()
    torch.save({"unet": network.unet_state_dict(), "head": network.cls_head.state_dict()}, stream)
    stream.seek(0)
    saved = torch.load(stream, weights_only=True)
    loaded = made(name, architecture, dim, stages, channels, classes, seed=5).eval()
    loaded.load_state_dict(loaded.join_state_dicts(saved["unet"], saved["head"]), strict=True)
    x = patch(dim, stages, channels)
    with torch.no_grad():
        (segmentation, logits), (again, logits_again) = network(x, return_cls=True), loaded(x, return_cls=True)
    assert all(torch.equal(a, b) for a, b in zip(segmentation, again, strict=True))
    assert torch.equal(logits, logits_again)


def test_attention_head_stays_finite_on_features_that_do_not_fit_half_precision() -> None:
    network = made("memory_attention", PlainConvUNet, 3, 4, 1, 3)
    x = patch(3, 4, 1)
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter.mul_(30)
        with torch.autocast("cpu", torch.float16):
            _, logits = network(x, return_cls=True)
    assert logits.dtype == torch.float32 and bool(torch.isfinite(logits).all())
