"""nnU-Net's trainer with a schedule from the environment; stage 1 and the multi-task trainers share it."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nnunet_3dct.runtime import keep_freed_memory
from nnunet_3dct.settings import Settings
from nnunet_3dct.upstream import BasicTransform, ImageOnlyTransform, RandomTransform, nnUNetTrainer


class ScheduledTrainer(nnUNetTrainer):
    """Stock training whose length, learning rate and seed may be set by ``NNUNETV2_MT_*``.

    With no variable set it trains as ``nnUNetTrainer`` does. With a seed, augmentation runs in the main
    process and the random generators are set anew for every epoch, so that a resumed run draws the
    same patches as an unbroken one.

    Raises:
        SettingsError: a variable holds a bad value; before any folder is made.
    """

    num_epochs: int
    num_iterations_per_epoch: int
    num_val_iterations_per_epoch: int
    initial_lr: float
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
        if device.type == "cpu":
            keep_freed_memory()
        super().__init__(plans, configuration, fold, dataset_json, device)
        settings = self.settings
        self.num_epochs = settings.epochs or self.default_epochs or self.num_epochs
        self.num_iterations_per_epoch = settings.iters_per_epoch or self.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = settings.val_iters or self.num_val_iterations_per_epoch
        self.initial_lr = settings.lr or self.default_lr or self.initial_lr
        self._bar: tqdm | None = None

    def initialize(self) -> None:
        if not self.was_initialized and self.settings.seed is not None:
            self._reseed(self.settings.seed)
        super().initialize()

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

    def on_train_epoch_start(self) -> None:
        if self.settings.seed is not None:
            self._reseed(self.settings.seed + 1000 * (self.current_epoch + 1) + self.local_rank)
        super().on_train_epoch_start()
        self._bar = tqdm(
            total=self.num_iterations_per_epoch,
            desc=f"Epoch {self.current_epoch + 1}/{self.num_epochs}",
            unit="it",
            leave=False,
            disable=True if self.local_rank else None,
        )

    def train_step(self, batch: dict) -> dict:
        result = super().train_step(batch)
        self._advance_bar()
        return result

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        if self._bar is not None:
            self._bar.close()
        super().on_train_epoch_end(train_outputs)

    def _advance_bar(self) -> None:
        if self._bar is not None:
            self._bar.update()

    @staticmethod
    def _reseed(seed: int) -> None:
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
