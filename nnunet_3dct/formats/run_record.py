"""What a training notes about itself in its checkpoints, for those who go on with it or start from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor
from typing_extensions import NotRequired, TypedDict

SettingValue: TypeAlias = "str | int | float | list[int] | list[float] | None"


class StartedFrom(TypedDict):
    """The checkpoint which a training started from.

    Attributes:
        path: as given, or the checkpoint in the folder that was given.
        fold: of that checkpoint.
        dataset: of that checkpoint, where it is another one than that of the training.
        left_out: parameters of the network that it had no fitting weights for, where there are any.
    """

    path: str
    fold: int | str | None
    dataset: NotRequired[str]
    left_out: NotRequired[list[str]]


class Averaging(TypedDict):
    """What lets a training go on whose checkpoint holds averaged weights.

    Attributes:
        decay: of the moving average.
        updates: how many it has had.
        trained_weights: of U-Net and head under the names of the whole network, as the optimiser left them.
    """

    decay: float
    updates: int
    trained_weights: Mapping[str, Tensor]


class RunRecord(TypedDict):
    """What a multi-task training notes about itself, for those who go on with it.

    Attributes:
        mt_num_classes, mt_loss_weight: as set.
        mt_settings: what decides the course of training, by the variable that sets it.
        mt_labels: class of every case, under ``training`` and ``validation``.
        mt_started_from: the stage-1 checkpoint, None without one.
        mt_best_cls: the best class score so far.
    """

    mt_num_classes: int
    mt_loss_weight: float
    mt_settings: dict[str, SettingValue]
    mt_labels: dict[str, dict[str, int]]
    mt_started_from: StartedFrom | None
    mt_best_cls: dict[str, float] | None


class TrainerState(TypedDict):
    """What nnU-Net's trainer keeps beside the weights, under its own keys."""

    optimizer_state: dict[str, Any]
    grad_scaler_state: dict[str, Any] | None
    logging: dict[str, list[Any]]
    _best_ema: float | None
    current_epoch: int
    init_args: dict[str, Any]
    trainer_name: str
    inference_allowed_mirroring_axes: tuple[int, ...] | None
