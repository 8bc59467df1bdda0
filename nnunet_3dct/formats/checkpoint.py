"""Checkpoints: nnU-Net's own keys plus the head; written whole or not at all, read without running code."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_3dct.errors import CheckpointError, listing

HEAD_STATE = "cls_head_state"
HEAD_CONFIG = "cls_head_config"


def _numpy_globals() -> list[Any]:
    """What stock nnU-Net's checkpoints hold beside tensors: NumPy scalars of its log."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(t)) for t in (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)}
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # of NumPy 1 and 2
    return [np.dtype, *dtypes, *((scalar, name) for name in names)]


def read_checkpoint(path: Path | str, map_location: str | torch.device = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint of ours, of stock nnU-Net or of the seed's format.

    Only tensors, plain Python values and NumPy scalars are accepted: no code in the file is run.

    Args:
        path: the file.
        map_location: as for ``torch.load``.
        mmap: read tensors only when they are used, for those who need the weights and not the optimiser's state;
            the file must not change meanwhile.

    Raises:
        CheckpointError: missing, truncated, holds other objects, or is no nnU-Net checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"Checkpoint {path}: expected a file, found none. Check the path.")
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Checkpoint {path}: expected tensors and plain values, found something else. Do not load a file "
            f"of unknown origin; if it is yours, save it anew without such objects. ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"Checkpoint {path} ({path.stat().st_size} bytes) cannot be read: {_first_line(error)}. It is "
            "probably cut off; use another one (checkpoint_best.pth, checkpoint_latest.pth) or copy it again."
        ) from error
    if not isinstance(checkpoint, dict) or "network_weights" not in checkpoint:
        found = type(checkpoint).__name__
        if isinstance(checkpoint, dict):
            found = listing(sorted(map(str, checkpoint)), 5)
        raise CheckpointError(f"Checkpoint {path}: expected nnU-Net's key network_weights, found {found}.")
    return checkpoint


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path | str) -> None:
    """Write to a temporary file beside ``path`` and rename it, so that a kill leaves the previous one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")  # a name of its own would stay behind after each kill
    try:
        with temporary.open("wb") as stream:
            torch.save(plain(checkpoint), stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Turn NumPy values, devices and paths into plain Python ones; tensors stay."""
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.device | Path):
        return str(value)
    return value


def head_config(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The head's description: ``name``, ``num_classes``, ``options``, ``class_names``, ``target_labels``.

    Checkpoints in the seed's format have none; theirs is the grid head, its classes counted from the weights.

    Raises:
        CheckpointError: the checkpoint holds no head.
    """
    if HEAD_STATE not in checkpoint:
        raise CheckpointError(
            f"Checkpoint {source}: expected a classification head (key {HEAD_STATE}), found a segmentation "
            "network only. Use a stage-2 checkpoint, or nnUNetv2_predict for segmentation alone."
        )
    config = checkpoint.get(HEAD_CONFIG)
    if config is not None:
        return dict(config)
    state = checkpoint[HEAD_STATE]
    if "final_fc.weight" not in state:
        raise CheckpointError(
            f"Checkpoint {source}: has no {HEAD_CONFIG} and its head is not the published grid head; "
            f"found the parameters {listing(sorted(state), 4)}."
        )
    return {
        "name": "grid",
        "num_classes": int(state["final_fc.weight"].shape[0]),
        "options": {},
        "class_names": None,
        "target_labels": None,
    }


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """Sixteen hexadecimal digits that differ between trained weights; on any device, in any order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_unet_fits(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], source: str) -> None:
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
