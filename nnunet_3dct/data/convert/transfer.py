"""Files that need no repair: copied or linked, whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from nnunet_3dct.errors import OutputError
from nnunet_3dct.formats.atomic import write_file
from nnunet_3dct.formats.conversion import file_sha256

COPY, HARD_LINK, SYMLINK = TRANSFERS = ("copy", "hardlink", "symlink")
HOW = {COPY: "copied", HARD_LINK: "hard link", SYMLINK: "symlink"}
_CHUNK = 1 << 20


def transfer_file(path: Path, target: Path, transfer: str) -> str:
    """Copy or link a file, so that it appears whole or not at all; returns its SHA-256.

    Raises:
        OutputError: it cannot be written; the message says when links are not possible there.
    """
    if transfer == COPY:
        with path.open("rb") as stream:
            write_file(target, lambda output: shutil.copyfileobj(stream, output, _CHUNK))
        return file_sha256(target)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            if transfer == HARD_LINK:
                temporary.hardlink_to(path.resolve())
            else:
                temporary.symlink_to(path.resolve())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be made a {HOW[transfer]} to {path}: {error}. Copy the files instead."
        ) from error
    return file_sha256(target)
