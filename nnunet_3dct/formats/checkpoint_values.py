"""Plain values of a checkpoint, read without torch and without its tensors; see :mod:`checkpoint` for the rest."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

STARTED_FROM = "mt_started_from"


def started_from(path: Path) -> dict[str, Any]:
    """Which checkpoint a training began with.

    Args:
        path: of a checkpoint.

    Returns:
        ``path`` and ``fold`` of that checkpoint; empty if none is stated, or the file cannot be read.
    """
    stated = read_plain_values(path).get(STARTED_FROM)
    return stated if isinstance(stated, dict) else {}


def read_plain_values(path: Path) -> dict[str, Any]:
    """Texts, numbers, lists and dictionaries of a checkpoint; tensors and other objects become placeholders.

    No code in the file is run, whatever it holds.

    Args:
        path: of the file.

    Returns:
        The checkpoint's dictionary, empty if there is no such file or it is not in torch's zip format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as stream:
                content = _PlainUnpickler(stream).load()
    except (OSError, zipfile.BadZipFile, StopIteration, pickle.UnpicklingError, EOFError, ValueError, TypeError):
        return {}
    return content if isinstance(content, dict) else {}


class _Placeholder:
    """Stands for an object that is no plain value."""

    def __new__(cls, *_: object, **__: object) -> _Placeholder:
        return object.__new__(cls)

    def __setstate__(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...

    def append(self, _: object) -> None: ...

    def extend(self, _: object) -> None: ...


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, _: str, __: str) -> type:
        return _Placeholder

    def persistent_load(self, _: object) -> _Placeholder:
        return _Placeholder()
