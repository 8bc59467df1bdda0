"""Checkpoints: nnU-Net's own keys plus the head.

The keys are spelled here and nowhere else: others read a :class:`Checkpoint` through its properties and write one
with :func:`compose_checkpoint`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from typing_extensions import TypedDict

from nnunet_3dct.errors import CheckpointError, listing
from nnunet_3dct.formats.run_record import Averaging, RunRecord, StartedFrom, TrainerState
from nnunet_3dct.formats.torch_files import read_torch_file, write_torch_file

NETWORK_WEIGHTS = "network_weights"
HEAD_STATE = "cls_head_state"
HEAD_CONFIG = "cls_head_config"
AVERAGING = "mt_weight_average"
FINAL, LATEST, CLASS_BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_cls_best.pth"

State: TypeAlias = Mapping[str, torch.Tensor]


class HeadConfig(TypedDict):
    """Describes a classification head, so that it can be built again.

    Attributes:
        name: in the registry of heads.
        num_classes: number of classes.
        options: the head's own constructor arguments.
        class_names: of ``dataset.json``, if it has any.
        target_labels: voxel labels that carry the class; None where nobody noted them.
    """

    name: str
    num_classes: int
    options: dict[str, Any]
    class_names: list[str] | None
    target_labels: list[int] | None


class Checkpoint(dict[str, Any]):
    """The content of a checkpoint file.

    Attributes:
        source: name of the file, for messages.
    """

    def __init__(self, content: Mapping[str, Any], source: str) -> None:
        super().__init__(content)
        self.source = source

    @property
    def unet_weights(self) -> State:
        """The U-Net alone, under nnU-Net's names."""
        weights: State = self[NETWORK_WEIGHTS]
        return weights

    @property
    def has_head(self) -> bool:
        """Whether it is of a multi-task training."""
        return HEAD_STATE in self

    @property
    def head_weights(self) -> State:
        """Weights of the classification head; check :attr:`has_head` first."""
        weights: State = self[HEAD_STATE]
        return weights

    @property
    def head_source(self) -> str:
        """Name of the head's weights, for messages."""
        return f"{self.source} ({HEAD_STATE})"

    @property
    def head_config(self) -> HeadConfig:
        """See :func:`head_config`."""
        return head_config(self, self.source)

    @property
    def trainer_name(self) -> str:
        """Class name of the trainer; empty where it is not noted."""
        return str(self.get("trainer_name", ""))

    @property
    def configuration(self) -> str:
        """Of the plans, for instance ``3d_fullres``."""
        return str(self["init_args"]["configuration"])

    @property
    def plans(self) -> dict[str, Any] | None:
        """nnU-Net's plans that the network was trained with; None where they, or the configuration, are not noted."""
        noted = self.get("init_args")
        if not isinstance(noted, dict) or "configuration" not in noted or not isinstance(noted.get("plans"), dict):
            return None
        plans: dict[str, Any] = noted["plans"]
        return plans

    @property
    def fold(self) -> int | str | None:
        """Which the network was trained for; None where it is not noted."""
        fold: int | str | None = self.get("init_args", {}).get("fold")
        return fold

    @property
    def epoch(self) -> int | None:
        """Epochs that were finished; None where it is not noted."""
        return self.get("current_epoch")

    @property
    def skipped_steps(self) -> int:
        """Steps left out so far because their gradients were not finite."""
        noted = self.get("logging", {}).get("skipped_steps") or [0]
        return 0 if np.isnan(noted[-1]) else int(noted[-1])

    @property
    def started_from(self) -> StartedFrom | None:
        """The stage-1 checkpoint which the training started from."""
        return self.get("mt_started_from")

    @property
    def averaging(self) -> Averaging | None:
        """What lets the training go on if the weights are averaged; None if they are not."""
        return self.get(AVERAGING)

    @property
    def dataset(self) -> str | None:
        """Name of the dataset that the network was trained on; None where it is not noted."""
        plans = self.get("init_args", {}).get("plans") or {}
        name: str | None = plans.get("dataset_name")
        return name

    @property
    def best_class_score(self) -> dict[str, float] | None:
        """Fields of the best class score so far."""
        return self.get("mt_best_cls")

    @property
    def labels(self) -> dict[str, dict[str, int]]:
        """Class of every case by part (``training``, ``validation``); empty where they are not noted."""
        return self.get("mt_labels") or {}

    @property
    def run_record(self) -> RunRecord:
        """What the training noted about itself; settings and labels empty where they are not noted."""
        record = {key: self.get(key) for key in RunRecord.__annotations__}
        return RunRecord(**{**record, "mt_settings": self.get("mt_settings") or {}, "mt_labels": self.labels})  # type: ignore[typeddict-item]

    @property
    def trainer_state(self) -> TrainerState:
        """What nnU-Net's trainer restores beside the weights."""
        return cast(TrainerState, {key: self.get(key) for key in TrainerState.__annotations__})


def compose_checkpoint(
    unet_weights: State,
    head_weights: State,
    head: HeadConfig,
    trainer: TrainerState,
    run: RunRecord,
    averaging: Averaging | None = None,
) -> dict[str, Any]:
    """The content of a checkpoint of ours, for :func:`write_checkpoint`."""
    content = compose_stock_checkpoint(unet_weights, trainer, averaging)
    return {**content, HEAD_STATE: head_weights, HEAD_CONFIG: head, **run}


def compose_stock_checkpoint(
    unet_weights: State, trainer: TrainerState, averaging: Averaging | None = None
) -> dict[str, Any]:
    """The content of a checkpoint of stage 1: nnU-Net's keys and, with averaged weights, one more."""
    content = {NETWORK_WEIGHTS: unet_weights, **trainer}
    return content if averaging is None else {**content, AVERAGING: averaging}


def read_checkpoint(path: Path | str, map_location: str | torch.device = "cpu", mmap: bool = False) -> Checkpoint:
    """Read a checkpoint of ours, of stock nnU-Net or of the seed's format; no code in the file is run.

    Args:
        path: the file.
        map_location: as for ``torch.load``.
        mmap: read tensors only when they are used, for those who need the weights and not the optimiser's state;
            the file must not change meanwhile.

    Raises:
        CheckpointError: missing, truncated, holds other objects, or is no nnU-Net checkpoint.
    """
    checkpoint = read_torch_file(Path(path), map_location, mmap)
    if not isinstance(checkpoint, dict) or NETWORK_WEIGHTS not in checkpoint:
        raise CheckpointError(
            f"Checkpoint {path}: expected nnU-Net's key {NETWORK_WEIGHTS}, found {content_of(checkpoint)}."
        )
    return Checkpoint(checkpoint, str(path))


def content_of(value: object) -> str:
    """What a file holds, for a message: the keys of a dictionary, else the type."""
    return listing(sorted(map(str, value)), 5) if isinstance(value, dict) else type(value).__name__


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path | str) -> None:
    """Write to a temporary file beside ``path`` and rename it, so that a kill leaves the previous one.

    Raises:
        OutputError: the file cannot be written, as on a full disk; the previous one is still there.
    """
    write_torch_file(checkpoint, Path(path))


def head_config(checkpoint: Mapping[str, Any], source: str) -> HeadConfig:
    """The description of the head in a checkpoint.

    Checkpoints in the seed's format have none; theirs is the grid head, its classes counted from the weights.

    Raises:
        CheckpointError: the checkpoint holds no head.
    """
    if HEAD_STATE not in checkpoint:
        raise CheckpointError(
            f"Checkpoint {source}: expected a classification head (key {HEAD_STATE}), found a segmentation "
            "network only. Use a stage-2 checkpoint, or nnUNetv2_predict for segmentation alone."
        )
    config: HeadConfig | None = checkpoint.get(HEAD_CONFIG)
    if config is not None:
        return cast(HeadConfig, dict(config))
    state = checkpoint[HEAD_STATE]
    if "final_fc.weight" not in state:
        raise CheckpointError(
            f"Checkpoint {source}: has no {HEAD_CONFIG} and its head is not the published grid head; "
            f"found the parameters {listing(sorted(state), 4)}."
        )
    return HeadConfig(
        name="grid",
        num_classes=int(state["final_fc.weight"].shape[0]),
        options={},
        class_names=None,
        target_labels=None,
    )


def fingerprint(state: State) -> str:
    """Sixteen hexadecimal digits that differ between trained weights; on any device, in any order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_unet_fits(expected: State, found: State, source: str) -> None:
    """Compare names and shapes of a network's state with a checkpoint's.

    Raises:
        CheckpointError: names the first few parameters that differ.
    """
    problems = [f"{k}: missing in the checkpoint" for k in expected if k not in found]
    problems += [f"{k}: only in the checkpoint" for k in found if k not in expected]
    problems += [
        f"{k}: expected shape {tuple(v.shape)}, found {tuple(found[k].shape)}"
        for k, v in expected.items()
        if k in found and v.shape != found[k].shape
    ]
    if problems:
        raise CheckpointError(
            f"Checkpoint {source} belongs to another network; train it with the same dataset, plans and "
            f"configuration. {len(problems)} parameters differ:\n  " + "\n  ".join(problems[:5])
        )
