"""Files of ``torch.save``: written whole or not at all, read without running code."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.atomic import remove_leftovers, write_file

_ZIP_START = b"PK\x03\x04"
_OLD_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.save before 1.6


def read_torch_file(path: Path, map_location: str | torch.device = "cpu", mmap: bool = False) -> Any:
    """What ``torch.save`` wrote; also before version 1.6, or in that form since.

    Only tensors, plain Python values and NumPy scalars are accepted: no code in the file is run.

    Args:
        path: the file.
        map_location: as for ``torch.load``.
        mmap: read tensors only when they are used; the file must not change meanwhile.

    Raises:
        CheckpointError: missing, truncated, of another kind, or holds other objects.
    """
    if not path.is_file():
        raise CheckpointError(f"Checkpoint {path}: expected a file, found none. Check the path.")
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_OLD_START))
        if start and not start.startswith(_ZIP_START) and not _OLD_START.startswith(start):
            raise CheckpointError(
                f"Checkpoint {path} ({path.stat().st_size} bytes): expected a file written by torch.save, found one "
                f"that begins with {start[:8]!r}. It is of another kind, or a page saved in its place; copy it again."
            )
        with torch.serialization.safe_globals(_numpy_globals()):
            mmap = mmap and start.startswith(_ZIP_START)
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Checkpoint {path}: expected tensors and plain values, found something else. Do not load a file "
            f"of unknown origin; if it is yours, save it anew without such objects. ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, struct.error) as error:
        raise CheckpointError(
            f"Checkpoint {path} ({path.stat().st_size} bytes) cannot be read: {_first_line(error)}. It is "
            "probably cut off; use another one (checkpoint_best.pth, checkpoint_latest.pth) or copy it again."
        ) from error


def write_torch_file(content: Mapping[str, Any], path: Path) -> None:
    """Write to a temporary file beside ``path`` and rename it, so that a kill leaves the previous one.

    Raises:
        OutputError: the file cannot be written, as on a full disk; the previous one is still there.
    """
    remove_leftovers(path)  # of writes that were killed: they are large
    write_file(path, lambda stream: _save(plain(content), stream))


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


def _numpy_globals() -> list[Any]:
    """What stock nnU-Net's checkpoints hold beside tensors: NumPy scalars of its log."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(t)) for t in (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)}
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # of NumPy 1 and 2
    return [np.dtype, *dtypes, *((scalar, name) for name in names)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _save(content: Any, stream: BinaryIO) -> None:
    try:
        torch.save(content, stream)
    except RuntimeError as error:  # torch's writer says "unexpected pos" where the disk is full
        if "inline_container" not in str(error):
            raise
        raise OSError(f"torch.save could not write it, the disk may be full ({_first_line(error)})") from error
