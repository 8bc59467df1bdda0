"""What all results share: written whole or not at all, identifiers, text that fits, no word on values of tags."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from nnunet_3dct.formats.atomic import write_file

_LOCK = threading.RLock()


def new_uid() -> str:
    """A unique identifier below 2.25, which needs no root of one's own."""
    return str(generate_uid(prefix=None))


def fitting(text: str, longest: int = 64) -> str:
    """``text`` cut to what DICOM leaves for it, without the characters that separate values and lines."""
    plain = " ".join(text.replace("\\", "/").split())
    return plain if len(plain) <= longest else plain[: longest - 3] + "..."


@contextmanager
def unvalidated() -> Iterator[None]:
    """Values are taken as they are: pydicom's warnings of odd ones would print them, with names of patients."""
    with _LOCK:
        settings = config.settings
        before = settings.reading_validation_mode, settings.writing_validation_mode
        settings.reading_validation_mode = settings.writing_validation_mode = config.IGNORE
        try:
            yield
        finally:
            settings.reading_validation_mode, settings.writing_validation_mode = before


def save(result: Dataset, path: Path) -> None:
    """Write a data set as a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with unvalidated():
        write_file(path, lambda stream: result.save_as(stream, enforce_file_format=True))
