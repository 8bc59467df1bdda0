"""Files that appear complete or not at all."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.errors import OutputError


def write_json(content: Any, path: Path) -> None:
    """Write ``content`` as :func:`to_json` gives it; see :func:`write_text`."""
    write_text(to_json(content) + "\n", path)


def to_json(content: Any) -> str:
    """Return strictly valid JSON: NumPy values become plain ones; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False)


def write_text(text: str, path: Path) -> None:
    """Write ``text`` in UTF-8 to a temporary file beside ``path`` and rename it.

    Raises:
        OutputError: the file cannot be written; what ``path`` held before is still there.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
