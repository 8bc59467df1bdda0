"""The ``NNUNETV2_*`` variables, read once into one frozen object."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from nnunet_3dct.errors import SettingsError

PREFIX = "NNUNETV2_MT_"
PRE_CHECKPOINT_PATH = "NNUNETV2_PRE_CHECKPOINT_PATH"
_OURS = (PREFIX, "NNUNETV2_PRE_")

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Settings of a training run; None leaves the choice to the trainer or the data.

    Attributes:
        num_cls: number of classes of the head.
        loss_weight: λ in ``seg_loss + λ · cls_loss``.
        gradient: share of the class loss's gradient that reaches the network, 0 to 1, for heads with that option.
        standardize: whether the published heads standardise what they read; ``"off"`` trains them as published.
        pre_checkpoint_path: stage-1 checkpoint which fine-tuning starts from.
        epochs, iters_per_epoch, val_iters: schedule.
        lr: initial learning rate of the U-Net.
        class_weights: ``"none"``, ``"balanced"`` or one weight for each class.
        label_smoothing: of the class loss.
        focal_gamma: exponent of the focal loss; 0 is cross-entropy.
        loss_warmup: epochs over which λ rises linearly to ``loss_weight``.
        sampler: ``"uniform"`` or ``"balanced"``.
        target_patches: share of the patches that are centred on the target, where the class of the case is known.
        seed: makes training repeatable.
        target_labels: ids or names of the voxel labels that carry the class; None for all foreground.
        intensity_aug: whether nnU-Net's intensity augmentation (noise, blur, brightness, contrast, gamma, low
            resolution) is used; ``"off"`` where attenuation itself tells the classes apart.
        mirror_axes: spatial axes that training mirrors and prediction may mirror; an empty tuple for none of them.
        ema: decay of the moving average of the weights; None for the weights as they are.
        cls_val_every: epochs between two class scores over whole validation volumes.
    """

    num_cls: int | None = None
    loss_weight: float | None = None
    gradient: float | None = None
    standardize: str | None = None
    pre_checkpoint_path: Path | None = None
    epochs: int | None = None
    iters_per_epoch: int | None = None
    val_iters: int | None = None
    lr: float | None = None
    class_weights: str | tuple[float, ...] | None = None
    label_smoothing: float | None = None
    focal_gamma: float = 0.0
    loss_warmup: int = 0
    sampler: str = "uniform"
    target_patches: float = 0.0
    seed: int | None = None
    target_labels: tuple[int | str, ...] | None = None
    intensity_aug: str = "on"
    mirror_axes: tuple[int, ...] | None = None
    ema: float | None = None
    cls_val_every: int = 1

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and validate the variables.

        Args:
            environ: defaults to ``os.environ``.

        Raises:
            SettingsError: one message that names every variable with a bad value, and every unknown
                variable that begins as ours do.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        problems = []
        for name, parse in _PARSERS.items():
            text = environ.get(_variable(name), "").strip()
            if not text:
                continue
            try:
                values[name] = parse(text)
            except ValueError as error:
                problems.append(f"{_variable(name)}: expected {error}, found {text!r}")
        known = sorted(_variable(f.name) for f in fields(cls))
        for name in sorted(environ):
            if name.startswith(_OURS) and name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
                meant = f"did you mean {near[0]}? " if near else ""
                problems.append(f"{name}: no such variable; {meant}known are {', '.join(known)}")
        if problems:
            raise SettingsError("Bad settings; correct or unset them:\n  " + "\n  ".join(problems))
        return cls(**values)


def _variable(name: str) -> str:
    return PRE_CHECKPOINT_PATH if name == "pre_checkpoint_path" else PREFIX + name.upper()


def _number(
    kind: Callable[[str], T], least: float, above: bool, what: str, most: float = math.inf, below: bool = False
) -> Callable[[str], T]:
    def parse(text: str) -> T:
        try:
            value = kind(text)
            finite = math.isfinite(value)  # type: ignore[arg-type]
        except (ValueError, OverflowError):
            raise ValueError(what) from None
        if not finite or not least <= value <= most or (above and value == least) or (below and value == most):  # type: ignore[operator]
            raise ValueError(what)
        return value

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(" or ".join(allowed))
        return text.lower()

    return parse


def _class_weights(text: str) -> str | tuple[float, ...]:
    if text.lower() in ("none", "balanced"):
        return text.lower()
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if len(weights) < 2 or not all(math.isfinite(w) and w > 0 for w in weights):
        raise ValueError("none, balanced or a comma list with one positive weight for each class")
    return weights


def _labels(text: str) -> tuple[int | str, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError("a comma list of voxel labels (ids or names of dataset.json)")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _axes(text: str) -> tuple[int, ...]:
    if text.lower() == "none":
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part in ("0", "1", "2") for part in parts) or len(set(parts)) < len(parts):
        raise ValueError("none or a comma list of the axes 0, 1 and 2, each once")
    return tuple(sorted(map(int, parts)))


_COUNT = _number(int, 1, False, "an integer of at least 1")

_PARSERS: dict[str, Callable[[str], Any]] = {
    "num_cls": _number(int, 2, False, "an integer of at least 2"),
    "loss_weight": _number(float, 0, False, "a number of at least 0"),
    "gradient": _number(float, 0, False, "a number from 0 to 1", most=1),
    "standardize": _choice("on", "off"),
    "pre_checkpoint_path": Path,
    "epochs": _COUNT,
    "iters_per_epoch": _COUNT,
    "val_iters": _COUNT,
    "lr": _number(float, 0, True, "a number above 0"),
    "class_weights": _class_weights,
    "label_smoothing": _number(float, 0, False, "a number from 0 to 0.99", most=0.99),
    "focal_gamma": _number(float, 0, False, "a number of at least 0"),
    "loss_warmup": _number(int, 0, False, "an integer of at least 0"),
    "sampler": _choice("uniform", "balanced"),
    "target_patches": _number(float, 0, False, "a number from 0 to 1", most=1),
    # the range of NumPy's seeds
    "seed": _number(int, 0, False, "an integer from 0 to 4294967295", most=2**32 - 1),
    "target_labels": _labels,
    "intensity_aug": _choice("on", "off"),
    "mirror_axes": _axes,
    "ema": _number(float, 0, True, "a number between 0 and 1, such as 0.999", most=1, below=True),
    "cls_val_every": _COUNT,
}
