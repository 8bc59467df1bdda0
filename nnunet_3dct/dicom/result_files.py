"""What all results share: written whole or not at all, identifiers, text that fits, no word on values of tags."""

from __future__ import annotations

import uuid
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from nnunet_3dct.dicom.tags import quiet
from nnunet_3dct.formats.atomic import write_file


def new_uid() -> str:
    """A unique identifier below 2.25, which needs no root of one's own."""
    return str(generate_uid(prefix=None))


def device_uid(version: str) -> str:
    """An identifier of what computed a result, the same for the same version."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, version).int}"


def fitting(text: str, longest: int = 64) -> str:
    """``text`` cut to what DICOM leaves for it, without the characters that separate values and lines."""
    plain = " ".join(text.replace("\\", "/").split())
    return plain if len(plain) <= longest else plain[: longest - 3] + "..."


def save(result: Dataset, path: Path) -> None:
    """Write a data set as a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with quiet():
        write_file(path, lambda stream: result.save_as(stream, enforce_file_format=True))
