"""Runtimes: the same network, the same answer."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.inference import backends
from nnunet_3dct.inference.backends import openvino_backend
from nnunet_3dct.inference.backends.openvino_backend import (
    OpenVINOBackend,
    cache_folder,
    openvino_precision,
    precise_instance_norms,
)
from nnunet_3dct.inference.backends.torch_backend import TorchBackend, torch_precision
from nnunet_3dct.networks.heads import ClassificationHead, UNetFeatures, head_names
from nnunet_3dct.networks.heads.base import WholeCaseHead
from nnunet_3dct.networks.heads.simple import SimpleHead
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from tests.networks.test_battery import made

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NETWORKS = [(PlainConvUNet, 3, 4, 2), (ResidualEncoderUNet, 3, 3, 1), (PlainConvUNet, 2, 5, 1)]


def network(name: str = "lesion", architecture=PlainConvUNet, dim: int = 3, stages: int = 3, channels: int = 1):
    made_network = made(name, architecture, dim, stages, channels, 3).eval()
    made_network.decoder.deep_supervision = False
    return made_network


def window(dim: int = 3, stages: int = 3, channels: int = 1, count: int = 1) -> torch.Tensor:
    shape = (*((8,) if dim == 3 else ()), 2**stages, 2 ** (stages + 1))
    return torch.randn(count, channels, *shape, generator=torch.Generator().manual_seed(5))


def share(x: torch.Tensor) -> torch.Tensor:
    """Of the voxels of windows, for heads of whole cases."""
    return torch.rand(len(x), 1, *x.shape[2:], generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("name", head_names())
@pytest.mark.parametrize(("architecture", "dim", "stages", "channels"), NETWORKS)
def test_openvino_gives_what_torch_gives(name: str, architecture, dim: int, stages: int, channels: int) -> None:
    net = network(name, architecture, dim, stages, channels)
    x = window(dim, stages, channels)
    importance = share(x) if isinstance(net.cls_head, WholeCaseHead) else None
    with torch.no_grad():
        expected, expected_class = net(x, return_cls=True)
        if importance is not None:
            _, features = net.segment_with_features(x)
            (expected_class,) = net.cls_head.summarize(features, importance)
    for backend in (TorchBackend(net, CPU), OpenVINOBackend(net, x.shape[1:], "f32")):
        for factor in (1.0, 0.5, 1.0):  # outputs of an earlier call must not leak into the next
            without_class, nothing = backend(x * factor, classify=False)
            without_class = without_class.clone()
            logits, class_logits = backend(x * factor, True, importance)
            assert nothing is None
            torch.testing.assert_close(without_class, logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(class_logits, expected_class, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", head_names())
def test_class_in_bf16_stays_near(name: str) -> None:
    capabilities = openvino_capabilities()
    if "BF16" not in capabilities:
        pytest.skip("this CPU does not compute in bf16")
    net, x = network(name), window()
    with torch.no_grad():
        expected, expected_class = net(x, return_cls=True)
    for backend in (OpenVINOBackend(net, x.shape[1:], "bf16"), TorchBackend(net, CPU, "bf16")):
        whole = torch.ones_like(x[:, :1]) if isinstance(net.cls_head, WholeCaseHead) else None
        logits, class_logits = backend(x, True, whole)
        if whole is not None:
            with torch.no_grad():
                class_logits = net.cls_head.classify(class_logits)
        assert 0 < (logits.float() - expected).abs().max() < 0.1, "not computed in bf16, or badly"
        assert class_logits.dtype == torch.float32
        torch.testing.assert_close(class_logits.softmax(1), expected_class.softmax(1), rtol=0, atol=0.05)


class WholeHead(SimpleHead):
    """A head that does not say how it splits."""

    def forward(self, features: UNetFeatures) -> torch.Tensor:
        return 2 * self.classifier(
            features.encoder[0].flatten(2).amax(2)[:, :1].expand(-1, self.spec.encoder_channels[-1])
        )


def test_head_known_only_as_a_whole_runs_in_the_runtime() -> None:
    net = network("simple")
    head = WholeHead(net.cls_head.spec, 3)
    assert isinstance(head, ClassificationHead)
    net = MultiTaskUNet(net, head).eval()
    with torch.no_grad():
        _, expected = net(window(), return_cls=True)
    _, found = OpenVINOBackend(net, window().shape[1:], "f32")(window())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def openvino_capabilities() -> list[str]:
    import openvino

    return openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one with every conversion."""
    convert, seen = openvino_backend._convert, []

    def counted(*args):
        seen.append(args)
        return convert(*args)

    monkeypatch.setattr(openvino_backend, "_convert", counted)
    return seen


def test_converted_model_is_kept_and_only_for_these_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversions: list[object]
) -> None:
    monkeypatch.setenv("NNUNET3DCT_CACHE", str(tmp_path / "cache"))
    net, x = network(), window()
    first = OpenVINOBackend(net, x.shape[1:], "f32")(x)[0].clone()
    again = OpenVINOBackend(net, x.shape[1:], "f32")(x)[0].clone()
    assert len(conversions) == 1 and torch.equal(first, again)
    with torch.no_grad():
        net.decoder.seg_layers[-1].bias += 1
    changed = OpenVINOBackend(net, x.shape[1:], "f32")(x)[0]
    assert len(conversions) == 2
    torch.testing.assert_close(changed, first + 1, rtol=1e-4, atol=1e-4)
    assert len([f for f in (tmp_path / "cache").iterdir() if not f.name.startswith(".")]) == 2
    assert not list((tmp_path / "cache").glob(".converting-*"))


def test_damaged_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversions: list[object]) -> None:
    monkeypatch.setenv("NNUNET3DCT_CACHE", str(tmp_path))
    net, x = network(), window()
    OpenVINOBackend(net, x.shape[1:], "f32")
    (model,) = tmp_path.glob("*/model.xml")
    model.write_bytes(model.read_bytes()[:1000])
    OpenVINOBackend(net, x.shape[1:], "f32")(x)
    OpenVINOBackend(net, x.shape[1:], "f32")(x)
    assert len(conversions) == 2


def test_half_removed_entry_of_the_cache_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversions: list[object]
) -> None:
    monkeypatch.setenv("NNUNET3DCT_CACHE", str(tmp_path))
    net, x = network(), window()
    OpenVINOBackend(net, x.shape[1:], "f32")
    (model,) = tmp_path.glob("*/model.xml")
    model.unlink()
    for _ in range(2):
        OpenVINOBackend(net, x.shape[1:], "f32")
    assert len(conversions) == 2 and model.is_file()


def test_remains_of_a_killed_conversion_go_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNET3DCT_CACHE", str(tmp_path))
    for name in ("old", "running"):
        (tmp_path / f".converting-{name}").mkdir()
    os.utime(tmp_path / ".converting-old", (0, 0))
    OpenVINOBackend(network("simple"), window().shape[1:], "f32")
    assert [folder.name for folder in tmp_path.glob(".converting-*")] == [".converting-running"]


def test_truncated_weights_in_the_cache_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversions: list[object]
) -> None:
    monkeypatch.setenv("NNUNET3DCT_CACHE", str(tmp_path))
    net, x = network(), window()
    expected = OpenVINOBackend(net, x.shape[1:], "f32")(x)[0].clone()
    (weights,) = tmp_path.glob("*/model.bin")
    weights.write_bytes(weights.read_bytes()[:-4000])
    found = OpenVINOBackend(net, x.shape[1:], "f32")(x)[0]
    assert len(conversions) == 2 and torch.equal(found, expected)


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NNUNET3DCT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="could not be kept in .*NNUNET3DCT_CACHE"):
        OpenVINOBackend(network(), window().shape[1:], "f32")(window())


def test_oldest_models_leave_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNET3DCT_CACHE", str(tmp_path))
    monkeypatch.setattr(openvino_backend, "KEPT_MODELS", 2)
    for stages in (3, 4, 5):
        net = network("simple", stages=stages)
        OpenVINOBackend(net, window(stages=stages).shape[1:], "f32")
    assert len(list(tmp_path.glob("*/model.xml"))) == 2


def test_cache_lies_where_caches_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NNUNET3DCT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "nnunet_3dct"


def test_runtime_is_chosen_by_device_and_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    net, shape = network(), window().shape[1:]
    assert backends.make_backend(net, shape, CPU).name == "openvino"
    assert backends.make_backend(net, shape, CPU, "torch").name == "torch"
    monkeypatch.setattr(openvino_backend, "is_installed", lambda: False)
    assert str(backends.make_backend(net, shape, CPU)) == "torch on cpu in f32"
    with pytest.raises(SettingsError, match="expected the package openvino"):
        backends.make_backend(net, shape, CPU, "openvino")
    with pytest.raises(SettingsError, match="expected the device cpu, found cuda"):
        backends.make_backend(net, shape, CUDA, "openvino")


def test_network_that_cannot_be_converted_runs_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args):
        raise RuntimeError("no such operation\nmore")

    monkeypatch.setattr(openvino_backend, "_converted", fail)
    net, shape = network(), window().shape[1:]
    with pytest.warns(UserWarning, match="no such operation"):
        assert backends.make_backend(net, shape, CPU).name == "torch"
    with pytest.raises(SettingsError, match="could not be converted"), warnings.catch_warnings():
        backends.make_backend(net, shape, CPU, "openvino")


@pytest.mark.parametrize(
    ("wanted", "capabilities", "found"),
    [("auto", ["FP32", "BF16"], "bf16"), ("auto", ["FP32", "INT8"], "f32"), ("f32", ["FP32", "BF16"], "f32")],
)
def test_openvino_computes_in_what_the_cpu_has(wanted: str, capabilities: list[str], found: str) -> None:
    assert openvino_precision(wanted, capabilities) == found


def test_precision_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"precision bf16: expected what this CPU computes in \(f32\)"):
        openvino_precision("bf16", ["FP32"])
    with pytest.raises(SettingsError, match="precision fp16"):
        torch_precision("fp16", CPU)
    assert torch_precision("auto", CUDA) == "fp16" and torch_precision("auto", CPU) == "f32"


@pytest.mark.parametrize("shape", [(1, 8, 40, 128, 144), (1, 8, 640, 960)])
def test_instance_norm_over_many_voxels_keeps_the_precision_of_f32(shape: tuple[int, ...]) -> None:
    import openvino

    norm = (torch.nn.InstanceNorm3d if len(shape) == 5 else torch.nn.InstanceNorm2d)(8, affine=True).eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 5
    model = precise_instance_norms(openvino.convert_model(torch.jit.trace(norm, x), input=list(shape)))
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found = torch.from_numpy(openvino.Core().compile_model(model, "CPU", settings)([x.numpy()])[0])
    assert (found - norm.double()(x.double())).abs().max() < 8e-6  # 17e-6 without


def test_norms_of_the_head_and_of_few_voxels_are_left_alone() -> None:
    net = torch.nn.Sequential(torch.nn.InstanceNorm3d(4), torch.nn.Flatten(), torch.nn.LayerNorm(4 * 512)).eval()
    x = torch.randn(1, 4, 8, 8, 8)
    assert_unchanged(net, x)
    assert_unchanged(torch.nn.InstanceNorm3d(4).eval(), torch.randn(1, 4, 33, 125, 131))  # not to be tiled


def assert_unchanged(net: torch.nn.Module, x: torch.Tensor) -> None:
    import openvino

    model = openvino.convert_model(torch.jit.trace(net, x), input=list(x.shape))
    before = [op.get_type_name() for op in model.get_ops()]
    assert [op.get_type_name() for op in precise_instance_norms(model).get_ops()] == before
