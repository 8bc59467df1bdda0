"""nnU-Net's local log with the class task in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_3dct.training.class_score import ClassScore
from nnunet_3dct.upstream import LocalLogger, MetaLogger

CLASS_KEYS = ("cls_train_losses", "cls_val_losses", "cls_f1_macro", "cls_accuracy", "skipped_steps")


class MultiTaskLogger(LocalLogger):
    """Keeps one value an epoch for both tasks; ``progress.png`` shows them side by side."""

    def __init__(self, verbose: bool = False) -> None:
        super().__init__(verbose)
        self._add_class_keys(0)

    def load_checkpoint(self, checkpoint: dict[str, list[Any]]) -> None:
        """Restore; a log of stock nnU-Net has no class values for its epochs."""
        super().load_checkpoint(checkpoint)
        self._add_class_keys(len(checkpoint["epoch_end_timestamps"]))

    def _add_class_keys(self, epochs: int) -> None:
        for key in CLASS_KEYS:
            self.my_fantastic_logging.setdefault(key, [float("nan")] * epochs)

    def plot_progress_png(self, output_folder: str) -> None:
        """Write ``progress.png``: segmentation, class, epoch times and learning rate over the epochs."""
        log = self.my_fantastic_logging
        n = min(len(values) for values in log.values())
        epochs = np.arange(n)
        fig = Figure(figsize=(16, 10), layout="constrained")
        axes = fig.subplots(2, 2)

        _curves(
            axes[0, 0],
            epochs,
            "Segmentation",
            "loss",
            train=log["train_losses"],
            validation=log["val_losses"],
        )
        scores = axes[0, 0].twinx()
        scores.plot(epochs, log["mean_fg_dice"][:n], ":", color="tab:green", label="pseudo Dice")
        scores.plot(epochs, log["ema_fg_dice"][:n], color="tab:green", label="pseudo Dice (moving average)")
        scores.set(ylabel="Dice", ylim=(0, 1))
        scores.legend(loc="upper right")

        _curves(
            axes[0, 1],
            epochs,
            "Class",
            "log loss",
            train=log["cls_train_losses"],
            validation=log["cls_val_losses"],
        )
        scores = axes[0, 1].twinx()
        scores.plot(epochs, log["cls_f1_macro"][:n], "o-", ms=3, color="tab:green", label="macro-F1, whole volumes")
        scores.plot(epochs, log["cls_accuracy"][:n], ":", color="tab:olive", label="accuracy, whole volumes")
        scores.set(ylabel="score", ylim=(0, 1.02))
        scores.legend(loc="upper right")

        seconds = np.subtract(log["epoch_end_timestamps"][:n], log["epoch_start_timestamps"][:n])
        axes[1, 0].plot(epochs, seconds)
        axes[1, 0].set(title="Epoch time", xlabel="epoch", ylabel="time [s]", ylim=(0, None))
        axes[1, 1].plot(epochs, log["lrs"][:n])
        axes[1, 1].set(title="Learning rate of the U-Net", xlabel="epoch", ylabel="rate")
        fig.savefig(Path(output_folder) / "progress.png", dpi=80)


def _curves(ax: Axes, epochs: np.ndarray, title: str, ylabel: str, **series: list[float]) -> None:
    for (label, values), colour in zip(series.items(), ("tab:blue", "tab:red"), strict=True):
        ax.plot(epochs, values[: len(epochs)], color=colour, label=label)
    ax.set(title=title, xlabel="epoch", ylabel=ylabel)
    ax.legend(loc="upper left")


def log_class_score(logger: MetaLogger, score: ClassScore | None, epoch: int) -> None:
    """Log the class score of an epoch; without one the values of the epoch before stand."""
    for key, name in (("cls_val_losses", "log_loss"), ("cls_f1_macro", "macro_f1"), ("cls_accuracy", "accuracy")):
        before = logger.get_value(key, step=None)[epoch - 1] if epoch > 0 else float("nan")
        logger.log(key, before if score is None else getattr(score, name), epoch)
