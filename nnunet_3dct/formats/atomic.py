"""Files that appear complete or not at all, and JSON files that are read with a message when they cannot be."""

from __future__ import annotations

import glob
import json
import math
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nnunet_3dct.errors import NNUNet3DCTError, OutputError


def write_json(content: Any, path: Path) -> None:
    """Write ``content`` as :func:`to_json` gives it; see :func:`write_text`."""
    write_text(to_json(content) + "\n", path)


def to_json(content: Any) -> str:
    """Return strictly valid JSON: NumPy values become plain ones; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False)


def write_text(text: str, path: Path) -> None:
    """Write ``text`` in UTF-8; see :func:`write_file`."""
    write_file(path, lambda stream: stream.write(text.encode("utf-8")))


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a temporary file beside ``path``, flush it to the disk and rename it.

    Args:
        path: of the file; its folder has to exist.
        write: writes the content to an open binary file.

    Raises:
        OutputError: the file cannot be written, as on a full disk; what ``path`` held before is still there.
    """
    temporary = path.with_name(_temporary_name(path, uuid.uuid4().hex))
    try:
        try:
            with temporary.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}.") from error


def remove_leftovers(path: Path) -> None:
    """Remove what writes of ``path`` that were killed have left beside it."""
    for leftover in path.parent.glob(_temporary_name(Path(glob.escape(path.name)), "*")):
        leftover.unlink(missing_ok=True)


def _temporary_name(path: Path, unique: str) -> str:
    return f".{path.name}.{unique}.tmp"


def read_json(path: Path, what: str, error: type[NNUNet3DCTError], remedy: str = "Check the path.") -> Any:
    """Content of a JSON file.

    Args:
        path: the file; a byte order mark at its start is skipped.
        what: it is, for the message, such as ``"Class labels"``.
        error: raised when it cannot be read.
        remedy: last sentence of the message.

    Raises:
        NNUNet3DCTError: of the kind ``error``; missing, not UTF-8 or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{what} {path} cannot be read: {problem}. {remedy}") from problem


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
