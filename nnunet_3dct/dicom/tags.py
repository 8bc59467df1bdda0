"""Small helpers for data sets: text that fits, new identifiers, reading without a word on the values."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import config
from pydicom.uid import generate_uid

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
