"""nnU-Net's trainer with settings from the environment; stage 1 and the multi-task trainers share it."""

from __future__ import annotations

import contextlib
import locale
import os
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed as dist

from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.formats.checkpoint import compose_stock_checkpoint, write_checkpoint
from nnunet_3dct.formats.run_record import Averaging
from nnunet_3dct.networks.multitask_unet import uncompiled
from nnunet_3dct.runtime import keep_freed_memory
from nnunet_3dct.settings import Settings
from nnunet_3dct.training import run_state
from nnunet_3dct.training.progress import EpochProgress
from nnunet_3dct.training.weight_average import WeightAverage, check_same_decay
from nnunet_3dct.upstream import BasicTransform, ImageOnlyTransform, PlansManager, RandomTransform, nnUNetTrainer

T = TypeVar("T")


class ScheduledTrainer(nnUNetTrainer):
    """Stock training whose length, learning rate, mirrored axes, average and seed may be set by ``NNUNETV2_MT_*``.

    With averaged weights validation and checkpoints hold the average, and training goes on with the weights as the
    optimiser leaves them; ``checkpoint_*.pth`` keep those too, for ``--c``.

    With no variable set it trains as ``nnUNetTrainer`` does. With a seed, augmentation runs in the main
    process and the random generators are set anew for every epoch, so that a resumed run draws the
    same patches as an unbroken one; on CUDA cuDNN then takes algorithms that give the same result every time
    in place of the fastest ones.

    How far an epoch is shows a bar on a terminal, and a line every half minute elsewhere.

    Raises:
        SettingsError: a variable holds a bad value; before any folder is made.
    """

    num_epochs: int
    num_iterations_per_epoch: int
    num_val_iterations_per_epoch: int
    initial_lr: float
    oversample_foreground_percent: float
    inference_allowed_mirroring_axes: tuple[int, ...] | None

    default_epochs: int | None = None
    default_lr: float | None = None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - upstream's signature
    ) -> None:
        self.settings = Settings.from_env()
        check_mirror_axes(self.settings.mirror_axes, plans, configuration)
        if device.type == "cpu":
            keep_freed_memory()
        super().__init__(plans, configuration, fold, dataset_json, device)
        settings = self.settings
        self.num_epochs = settings.epochs or self.default_epochs or self.num_epochs
        self.num_iterations_per_epoch = settings.iters_per_epoch or self.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = settings.val_iters or self.num_val_iterations_per_epoch
        self.initial_lr = settings.lr or self.default_lr or self.initial_lr
        self.progress: EpochProgress | None = None
        self.weight_average: WeightAverage | None = None
        self.resumed_decays: list[float | None] = []

    def initialize(self) -> None:
        if not self.was_initialized and self.settings.seed is not None:
            reseed(self.settings.seed)
        super().initialize()
        if self.settings.ema is not None:
            self.weight_average = WeightAverage(self.bare_network, self.settings.ema)

    @property
    def bare_network(self) -> torch.nn.Module:
        """The network, neither compiled nor wrapped for several processes."""
        return uncompiled(self.network.module if self.is_ddp else self.network)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802 - upstream's name
        """nnU-Net's, with the axes of ``NNUNETV2_MT_MIRROR_AXES``; prediction mirrors those too and no others."""
        rotation, dummy_2d, patch_size, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.settings.mirror_axes is not None:
            axes = self.settings.mirror_axes or None  # None as upstream's trainers without mirroring have it
            self.inference_allowed_mirroring_axes = axes
            self.say(f"Mirrored axes: {list(axes or ()) or 'none'}")
        return rotation, dummy_2d, patch_size, axes

    def get_dataloaders(self):
        if self.settings.seed is None:
            return super().get_dataloaders()
        with _environment("nnUNet_n_proc_DA", "0"):
            return super().get_dataloaders()

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        transforms = super().get_training_transforms(*args, **kwargs)
        if self.settings.intensity_aug == "off":
            transforms.transforms = [t for t in transforms.transforms if not _changes_intensity(t)]
        return transforms

    def on_train_start(self) -> None:
        for decay in self.resumed_decays:
            check_same_decay(decay, self.settings.ema, self.output_folder)
        super().on_train_start()
        if self.settings.seed is not None and self.device.type == "cuda":  # run_training has set the opposite
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False

    def on_train_epoch_start(self) -> None:
        if self.settings.seed is not None:
            reseed(self.settings.seed + 1000 * (self.current_epoch + 1) + self.local_rank)
        if self.weight_average is not None:
            self.weight_average.put_back()
        super().on_train_epoch_start()
        self.progress = EpochProgress(
            self.current_epoch,
            self.num_epochs,
            self.num_iterations_per_epoch,
            None if self.local_rank else self.print_to_log_file,
            self._seconds_of_last_epoch(),
        )

    def _seconds_of_last_epoch(self) -> float | None:
        starts, ends = (
            self.logger.get_value(f"epoch_{name}_timestamps", step=None)[: self.current_epoch]
            for name in ("start", "end")
        )
        return ends[-1] - starts[-1] if starts and len(starts) == len(ends) else None

    def train_step(self, batch: dict) -> dict:
        result = super().train_step(batch)
        self.average_weights()
        self.count_step()
        return result

    def average_weights(self) -> None:
        """Take the weights after a step into their average, if there is one."""
        if self.weight_average is not None:
            self.weight_average.update()

    def count_step(self) -> None:
        """Tell the progress that an iteration is done."""
        if self.progress is not None:
            self.progress.step()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        if self.progress is not None:
            self.progress.close()
        super().on_train_epoch_end(train_outputs)

    def on_validation_epoch_start(self) -> None:
        if self.weight_average is not None:  # and it stays there until training goes on, also for the checkpoints
            self.weight_average.put_in_place()
        super().on_validation_epoch_start()

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's; with averaged weights the same keys and one more."""
        if self.weight_average is None or self.disable_checkpointing or self.local_rank != 0:
            super().save_checkpoint(filename)
            return
        with self.weight_average.in_place():
            weights, averaging = self.bare_network.state_dict(), self.weight_average.state()
            write_checkpoint(compose_stock_checkpoint(weights, run_state.trainer_state(self), averaging), filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """nnU-Net's; with averaged weights those that training goes on with too."""
        super().load_checkpoint(filename_or_checkpoint)
        self.restore_average(run_state.read(filename_or_checkpoint, torch.device("cpu")).averaging)

    def restore_average(self, averaging: Averaging | None) -> None:
        """Go on with the average of a checkpoint that was loaded.

        Args:
            averaging: None if its weights are not averaged.
        """
        self.resumed_decays = [None if averaging is None else averaging["decay"]]
        if self.weight_average is not None and averaging is not None:
            self.weight_average.restore(averaging)

    @property
    def world_size(self) -> int:
        """Number of processes that train together."""
        return dist.get_world_size() if self.is_ddp else 1

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in order of rank."""
        if not self.is_ddp:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def say(self, *lines: str | None) -> None:
        """Log what there is to say."""
        for line in lines:
            if line:
                self.print_to_log_file(line)

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """nnU-Net's; names that the log file or the terminal cannot spell do not end the training."""
        super().print_to_log_file(
            *(printable(str(arg)) for arg in args),
            also_print_to_console=also_print_to_console,
            add_timestamp=add_timestamp,
        )


def check_mirror_axes(axes: Sequence[int] | None, plans: dict, configuration: str) -> None:
    """Mirrored axes have to be axes of the images.

    Args:
        axes: that were asked for.
        plans: of nnU-Net.
        configuration: of the plans.

    Raises:
        SettingsError: names the axes that the configuration does not have.
    """
    if not axes:
        return
    dim = len(PlansManager(plans).get_configuration(configuration).patch_size)
    missing = [axis for axis in axes if axis >= dim]
    if missing:
        raise SettingsError(
            f"NNUNETV2_MT_MIRROR_AXES: expected axes from 0 to {dim - 1}, which {configuration} has, found "
            f"{listing(missing)}."
        )


def printable(text: str) -> str:
    """The text, with codes in place of characters that files or standard output of this process cannot hold."""
    for encoding in {locale.getpreferredencoding(False), getattr(sys.stdout, "encoding", None) or "utf-8"}:
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def reseed(seed: int) -> None:
    """Set all random generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _changes_intensity(transform: BasicTransform) -> bool:
    inner = transform.transform if isinstance(transform, RandomTransform) else transform
    # those in transforms.nnunet act on the cascade's one-hot channels, not on the image
    return isinstance(inner, ImageOnlyTransform) and ".nnunet." not in type(inner).__module__


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    previous = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if previous is None:
            del os.environ[name]
        else:
            os.environ[name] = previous
