"""What each of two processes does in the tests of distributed training: nnU-Net's DDP, on CPUs with gloo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nnunetv2.training.nnUNetTrainer.nnUNetTrainer
import torch
from nnunetv2.run.run_training import find_free_network_port, get_trainer_from_args
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from tests import toy

Work = Callable[..., None]


def run(work: Work, *args: Any) -> None:
    """Call ``work(*args)`` in two processes that form a group; raises what one of them raised."""
    mp.spawn(_enter, args=(find_free_network_port(), work, args), nprocs=2, join=True)


def _enter(rank: int, port: int, work: Work, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    # nnU-Net takes CUDA for granted here; gloo needs networks without device ids
    module = nnunetv2.training.nnUNetTrainer.nnUNetTrainer
    module.DDP = lambda network, device_ids: DistributedDataParallel(network)
    try:
        work(*args)
    finally:
        dist.destroy_process_group()


def get_trainer(name: str) -> Any:
    """As ``nnUNetv2_train -num_gpus 2`` makes it, but on the CPU."""
    trainer = get_trainer_from_args(toy.DATASET, "3d_fullres", 0, name, toy.PLANS)
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    return trainer


def one_step(name: str, batch_file: Path, out: Path) -> None:
    """Train on this process's half of the batch; save losses, head gradients and weights."""
    trainer = get_trainer(name)
    rank = dist.get_rank()
    step(trainer, half(torch.load(batch_file, weights_only=False), rank), out / f"rank_{rank}.pth")


def step(trainer: Any, batch: dict[str, Any], out: Path) -> None:
    """One training step, without dropout; what it gave goes to ``out``."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    for module in trainer.multitask_network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    trainer.class_weight = torch.tensor([1.0, 2.0, 5.0])
    result = trainer.train_step(batch)
    network = trainer.multitask_network
    torch.save(
        {
            "loss": float(result["loss"]),
            "cls_loss": float(result["cls_loss"]),
            "head_gradients": {n: p.grad for n, p in network.cls_head.named_parameters()},
            "weights": network.state_dict(),
        },
        out,
    )


def half(batch: dict[str, Any], rank: int) -> dict[str, Any]:
    """The first or the second half of the samples."""
    n = len(batch["keys"]) // 2
    part = slice(rank * n, (rank + 1) * n)
    target = batch["target"]
    return {
        "data": batch["data"][part],
        "target": [t[part] for t in target] if isinstance(target, list) else target[part],
        "keys": batch["keys"][part],
    }


def whole_training(name: str) -> None:
    """Train, then validate the fold."""
    trainer = get_trainer(name)
    trainer.run_training()
    trainer.perform_actual_validation(False)


def first_epoch(name: str) -> None:
    """Train one epoch, then die."""
    trainer = get_trainer(name)
    trainer.save_every = 1
    start = trainer.on_epoch_start

    def stop() -> None:
        if trainer.current_epoch == 1:
            raise SystemExit(0)
        start()

    trainer.on_epoch_start = stop
    trainer.run_training()


def averages_of_a_training(name: str, out: Path) -> None:
    """Train; save this process's averaged and trained weights."""
    trainer = get_trainer(name)
    trainer.run_training()
    average = {k: v.clone() for k, v in trainer.bare_network.state_dict().items()}
    trained = trainer.weight_average.state()["trained_weights"]
    torch.save({"average": average, "trained": dict(trained)}, out / f"rank_{dist.get_rank()}.pth")
