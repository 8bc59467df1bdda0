"""Files of a folder tree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def walk(folder: Path) -> Iterator[Path]:
    """Every file of a tree, sorted; links to folders are followed, once."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (Path(parent) / name for name in sorted(files))


def is_hidden(path: Path) -> bool:
    """Whether it is a file that systems leave, as those of macOS."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def is_readable(path: Path) -> bool:
    """Whether it is a file that may be opened."""
    return path.is_file() and os.access(path, os.R_OK)
