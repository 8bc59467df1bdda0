"""Every tensor of a prediction on CUDA lies where it should: fake tensors need no GPU and refuse mixed devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_3dct.inference import windows as windows_module
from nnunet_3dct.inference.aggregation import CaseClass, ClassRecord
from nnunet_3dct.inference.backends.torch_backend import TorchBackend
from nnunet_3dct.inference.ensemble import Ensemble
from nnunet_3dct.inference.explanation import WindowExplainer
from nnunet_3dct.inference.resampling import plan_resampling, resample, resample_in_slabs
from nnunet_3dct.inference.whole_case import WholeCaseRecord
from nnunet_3dct.networks.heads import head_names
from nnunet_3dct.networks.target import argmax_labels
from tests.inference.test_backends import network
from tests.inference.test_windows import windows

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


class ScalarsAreOne(TorchDispatchMode):
    """Fake tensors have no values; whoever asks for one gets 1."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        if func in (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default):
            return args[0].dtype is torch.bool or 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CUDA without a GPU; what needs values is stood in for."""

    def result(self: ClassRecord, windows: int | None = None) -> CaseClass:
        shares = tuple(1 / 4 for _ in range(4))
        return CaseClass((0.2, 0.3, 0.5), 4, 8, 1, True, (shares,))

    gaussian = lambda size, device=CPU, dtype=torch.half, **_: torch.ones(size, device=device, dtype=dtype)  # noqa: E731
    monkeypatch.setattr(ClassRecord, "result", result)
    monkeypatch.setattr(WholeCaseRecord, "result", lambda record, columns, passes: result(record))  # type: ignore[arg-type]
    monkeypatch.setattr(windows_module, "compute_gaussian", gaussian)  # keeps what it made for the next test
    # autograd's engine asks CUDA for its streams
    monkeypatch.setattr(torch.autograd, "grad", lambda value, leaves, allow_unused: [*map(torch.ones_like, leaves)])
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: module)  # fake weights cannot move: made there
    with FakeTensorMode(allow_non_fake_inputs=True), ScalarsAreOne():
        yield


def test_mixed_devices_are_noticed(fake: None) -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device=CUDA) + torch.ones(3)


@pytest.mark.parametrize("sums", [CUDA, CPU])
@pytest.mark.parametrize("head", head_names())
def test_windows_of_every_head(head: str, sums: torch.device, fake: None) -> None:
    with CUDA:
        net = network(head)
    backend = TorchBackend(net, CUDA, "fp16")
    ensemble = Ensemble([backend], windows(), ways=[(8, sums)], explainers=[WindowExplainer(net, CUDA, "fp16")])
    output = ensemble.predict(torch.zeros(1, 12, 8, 24))
    assert output.logits.device == sums and output.logits.shape == (3, 12, 8, 24)
    assert output.evidence is not None and output.evidence.device == CPU


@pytest.mark.parametrize("separate", [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0)])
def test_resampling_and_labels(separate: tuple[float, ...], fake: None) -> None:
    plan = plan_resampling((9, 20, 21), (23, 31, 17), separate, (1.0, 1.0, 1.0), 3)
    assert resample(torch.zeros(2, 9, 20, 21, device=CUDA), plan).device == CUDA
    for _, slab in resample_in_slabs(torch.zeros(3, 9, 20, 21, device=CUDA, dtype=torch.half), plan):
        assert argmax_labels(slab.half()).device == CUDA
