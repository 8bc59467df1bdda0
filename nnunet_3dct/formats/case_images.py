"""Images of one case read as nnU-Net reads them and checked on the way; a compressed file is decompressed once."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.file_kinds import is_gzip
from nnunet_3dct.formats.image_files import check_case_content, check_file_kind, check_image_file, check_stream
from nnunet_3dct.formats.image_readers import ImageProperties, ImageReader, Reader, reads_with_nibabel
from nnunet_3dct.formats.nifti_header import read_nifti_header

_MEMORY = Path("/dev/shm")


def read_case_images(
    files: Sequence[Path], reader: ImageReader, expected_channels: int, case: str
) -> tuple[np.ndarray, ImageProperties]:
    """Read the images of one case.

    ITK does not notice that a compressed NIfTI file is truncated, and decompressing takes longer than all else. So the
    file is decompressed once, in memory where there is room, checked there and read from there.

    Args:
        files: one file a channel, in order.
        reader: nnU-Net's, of the model's plans.
        expected_channels: number of ``channel_names`` in dataset.json.
        case: the identifier for messages.

    Returns:
        Intensities ``(C, Z, Y, X)``, float32, and the properties that nnU-Net's readers give; ``spacing`` among them is
        (Z, Y, X) in mm.

    Raises:
        ImageError: as :func:`~nnunet_3dct.formats.image_files.check_case_files`.
    """
    files = [Path(path) for path in files]
    with PlainCopies(files, reader) as copies:
        plain = [copies.whole(path) for path in files]
        try:
            check_case_content(plain, expected_channels, case, reader=reader)
            return _read(plain, reader, case)
        except ImageError as error:
            raise ImageError(copies.original_names(str(error))) from error


class PlainCopies:
    """Whole, decompressed copies of files, in memory where there is room; gone at the end of the ``with`` block.

    Args:
        files: that may be asked for.
        reader: that nnU-Net uses for them, by name or class; None for one that uses ITK.
    """

    def __init__(self, files: Sequence[Path], reader: Reader | None) -> None:
        self._reader = reader
        self._room = _room_for([path for path in files if path.is_file()], reader)
        self._copies: dict[Path, Path] = {}

    def __enter__(self) -> PlainCopies:
        self._stack = contextlib.ExitStack()
        if self._room is not None:
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=self._room)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def whole(self, path: Path) -> Path:
        """A copy with the name of the file, or the file itself where it is plain or there is no room.

        Raises:
            ImageError: as :func:`~nnunet_3dct.formats.image_files.check_image_file`.
        """
        if self._room is None:
            check_image_file(path, reader=self._reader)
            return path
        if path not in self._copies:
            place = Path(tempfile.mkdtemp(dir=self._folder))
            self._copies[path] = _decompressed(path, place, self._reader)
        return self._copies[path]

    def known(self, path: Path) -> Path:
        """The copy of a file that was asked for before, else the file itself."""
        return self._copies.get(path, path)

    def original_names(self, message: str) -> str:
        """The message with the files in place of their copies."""
        for path, copy in self._copies.items():
            message = message.replace(str(copy), str(path))
        return message


def _decompressed(path: Path, folder: Path, reader: Reader | None) -> Path:
    """A whole, plain copy of the same name in ``folder``, read by its content; the file itself where it is plain."""
    if not path.name.lower().endswith(".nii.gz") or not path.is_file() or not is_gzip(path):
        check_image_file(path, reader=reader)
        return path
    check_file_kind(path, reader=reader)
    needed = read_nifti_header(path).num_bytes
    copy = folder / path.name
    with copy.open("wb") as stream:
        check_stream(path, needed, stream)
    return copy


def _room_for(files: Sequence[Path], reader: Reader | None) -> Path | None:
    """Folder for the decompressed files; None where there is no room or the reader needs the compressed ones."""
    if reads_with_nibabel(reader):
        return None
    try:
        needed = sum(read_nifti_header(path).num_bytes for path in files if path.name.lower().endswith(".nii.gz"))
    except (ImageError, OSError):
        return None  # the check says what is wrong
    for folder in (_MEMORY, Path(tempfile.gettempdir())):
        if folder.is_dir() and shutil.disk_usage(folder).free > 2 * needed:
            return folder
    return None


def _read(files: Sequence[Path], reader: ImageReader, case: str) -> tuple[np.ndarray, ImageProperties]:
    try:
        return reader.read_images([str(path) for path in files])
    except Exception as error:  # every reader has its own exceptions
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ImageError(f"{case}: the images cannot be read: {reason[0]}. Copy or convert them again.") from error
