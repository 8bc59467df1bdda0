"""Weights to start from, in the forms in which they are passed around.

A checkpoint of nnU-Net; nnU-Net's folder of a trained model, as TotalSegmentator ships them; a ``state_dict``, bare or
under one of the usual keys, with the prefixes that ``torch.compile`` and the wrappers for several processes add.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from nnunet_3dct.errors import CheckpointError, listing
from nnunet_3dct.formats.checkpoint import FINAL, NETWORK_WEIGHTS, Checkpoint, State, content_of
from nnunet_3dct.formats.torch_files import read_torch_file

FOLDS = ("fold_0", "fold_all")
KEYS = (NETWORK_WEIGHTS, "state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")


def read_pretrained(path: Path | str, map_location: str | torch.device = "cpu", mmap: bool = False) -> Checkpoint:
    """Read weights to start from; no code in the file is run.

    Args:
        path: a file, or nnU-Net's folder of a trained model or of one of its folds.
        map_location, mmap: as for :func:`~nnunet_3dct.formats.checkpoint.read_checkpoint`.

    Returns:
        Its ``unet_weights`` are under the names of the network. A checkpoint of nnU-Net is returned whole; of a
        ``state_dict`` nothing else is known.

    Raises:
        CheckpointError: missing, truncated, holds other objects than tensors and plain values, or no weights.
    """
    path = find_pretrained(Path(path))
    content = read_torch_file(path, map_location, mmap)
    state = _state_of(content)
    if state is None:
        raise CheckpointError(
            f"Checkpoint {path}: expected nnU-Net's key {NETWORK_WEIGHTS}, a state_dict, or one under the key "
            f"{KEYS[1]} or {KEYS[2]}, found {content_of(content)}."
        )
    others = content if NETWORK_WEIGHTS in content else {}
    return Checkpoint({**others, NETWORK_WEIGHTS: {_bare(name): value for name, value in state.items()}}, str(path))


def find_pretrained(path: Path) -> Path:
    """The checkpoint in a folder of a trained model or of a fold; a path to anything else as it is.

    Raises:
        CheckpointError: the folder holds none.
    """
    if not path.is_dir():
        return path
    candidates = [path / FINAL, *(path / fold / FINAL for fold in FOLDS)]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        inside = listing(sorted(entry.name for entry in path.iterdir())) or "nothing"
        raise CheckpointError(
            f"Folder {path}: expected a trained model of nnU-Net with {' or '.join(f'{f}/{FINAL}' for f in FOLDS)}, "
            f"found {inside}. Give the folder <trainer>__<plans>__<configuration>, or the path of a checkpoint."
        )
    return found


def _state_of(content: object) -> State | None:
    """The weights in what a file holds, None if there are none."""
    if not isinstance(content, Mapping):
        return None
    for key in KEYS:
        if key in content:
            return content[key] if _is_state(content[key]) else None
    return content if _is_state(content) else None


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(part, torch.Tensor) for part in value.values())


def _bare(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name
