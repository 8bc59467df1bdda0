"""One step of every trainer on tensors that claim to be on CUDA: mixed devices raise, and waits of the CPU show.

torch's FakeTensorMode needs no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_3dct.training import steps
from nnunet_3dct.training import variants as trainers
from nnunet_3dct.training.class_loss import as_tensor
from nnunet_3dct.training.trainer import MultiTaskTrainer
from tests import toy

ALL = sorted(
    name
    for name, value in vars(trainers).items()
    if isinstance(value, type) and issubclass(value, MultiTaskTrainer) and value is not MultiTaskTrainer
)


class Waits(TorchDispatchMode):
    """Counts what makes the CPU wait for the device: reading a scalar, copies that block."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type != "cpu":
            self.found.append("a scalar is read")
        if func is torch.ops.aten._to_copy.default:
            source, target = args[0].device.type, torch.device(kwargs.get("device") or args[0].device).type
            if source != target and not kwargs.get("non_blocking"):
                self.found.append(f"a copy from {source} to {target} blocks")
        return func(*args, **kwargs)


@pytest.fixture
def on_fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Makes trainers whose networks are on a CUDA device that need not be there."""
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", "")
    with FakeTensorMode() as mode:

        def make(name: str) -> Any:
            monkeypatch.setattr(getattr(trainers, name), "from_checkpoint", False)
            trainer = toy.get_trainer(name)
            trainer.device = torch.device("cuda", 0)
            with torch.device("cuda", 0), monkeypatch.context() as context:
                context.setattr(nn.Module, "to", lambda module, *args, **kwargs: module)  # they are made there
                trainer.initialize()
            trainer.class_weight = as_tensor([1.0, 2.0, 3.0], trainer.device)
            trainer.network.train()
            return trainer

        yield make
    del mode


def batch_of(trainer: Any) -> dict[str, Any]:
    """What the data loader gives: tensors on the CPU."""
    sizes = [(2, 1, 16 // k, 16 // k, 16 // k) for k in (1, 2)]
    target = [torch.zeros(size, dtype=torch.int16) for size in sizes]
    return {"data": torch.zeros(2, 1, 16, 16, 16), "target": target, "keys": toy.TRAINING[:2]}


@pytest.mark.parametrize("name", ALL)
def test_step_stays_on_its_device_and_waits_for_it_once(
    name: str, nnunet: Path, on_fake_cuda: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = on_fake_cuda(name)
    read: list[set[str]] = []

    def read_back(*values: torch.Tensor) -> list[float]:
        read.append({value.device.type for value in values})
        return [0.5] * len(values)  # a fake tensor has no value

    monkeypatch.setattr(steps, "read_back", read_back)
    reached = []

    def backward(loss: torch.Tensor) -> None:  # torch's own asks for the device's driver
        reached.append(loss.device.type)
        for parameter in trainer.network.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with Waits() as waits:
        result = trainer.train_step(batch_of(trainer))
    assert result == {"loss": 0.5, "cls_loss": 0.5}
    assert waits.found == [] and read == [{"cuda"}] and reached == ["cuda"]
    for key, parameter in trainer.multitask_network.named_parameters():
        assert isinstance(parameter, FakeTensor) and parameter.device.type == "cuda", key
    for key, buffer in trainer.multitask_network.named_buffers():
        assert buffer.device.type == "cuda", key


def test_mixed_devices_are_found(on_fake_cuda: Callable[[str], Any], nnunet: Path) -> None:
    trainer = on_fake_cuda("nnUNetTrainer_CLSHeadSum")
    trainer.class_weight = torch.ones(3)
    with pytest.raises(Exception, match=r"(?i)device"):
        trainer.train_step(batch_of(trainer))


def test_waits_are_found() -> None:
    with FakeTensorMode(), Waits() as waits:
        x = torch.zeros(3, device="cuda")
        torch.ones(3).to("cuda", non_blocking=True)
        assert waits.found == []
        x.cpu()
        torch.ones(3).to("cuda")
        with pytest.raises(RuntimeError):
            bool(x.sum())
    assert waits.found == ["a copy from cuda to cpu blocks", "a copy from cpu to cuda blocks", "a scalar is read"]


def test_numbers_come_back_in_one_transfer() -> None:
    with Waits() as waits:
        values = steps.read_back(torch.tensor(1.0), torch.tensor(float("nan"), requires_grad=True), torch.tensor(3.0))
    assert (values[0], values[2]) == (1.0, 3.0) and values[1] != values[1]
    assert waits.found == []  # tolist reads all of them at once
