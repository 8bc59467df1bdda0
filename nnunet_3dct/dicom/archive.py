"""ZIP archives, unpacked into a temporary folder without trusting them."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nnunet_3dct.errors import ImageError

MOST_BYTES = 32 * 2**30
MOST_FILES = 200_000
_CHUNK = 1 << 20


class ExtractedArchive:
    """Files of a ZIP archive; the temporary folder goes when the last object that holds this one goes.

    A copy in another process (pickled) names the folder and leaves it in place.

    Attributes:
        folder: that holds the files.
        damaged: path in the archive -> why it could not be unpacked.
    """

    def __init__(self, archive: Path, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES) -> None:
        """Unpack ``archive``.

        Args:
            archive: the ZIP file.
            most_bytes: that its files may have together.
            most_files: that it may hold.

        Raises:
            ImageError: no ZIP archive, encrypted, a path in it leads out of it, or it is too large.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="nnunet_3dct_zip_"))
        self.damaged: dict[str, str] = {}
        self._finalizer = weakref.finalize(self, _remove, self.folder, os.getpid())
        try:
            self._unpack(archive, most_bytes, most_files)
        except BaseException:
            self._finalizer()
            raise

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "damaged": self.damaged}

    def _unpack(self, archive: Path, most_bytes: int, most_files: int) -> None:
        try:
            with zipfile.ZipFile(archive) as opened:
                members = [member for member in opened.infolist() if not member.is_dir()]
                for member in members:
                    _check_member(archive, member)
                if len(members) > most_files:
                    raise ImageError(
                        f"{archive}: expected up to {most_files:,} files, found {len(members):,}. Unpack it yourself."
                    )
                _check_room(archive, sum(member.file_size for member in members), most_bytes, self.folder)
                for member in members:
                    if not stat.S_ISLNK(member.external_attr >> 16):
                        self._write(opened, member)
        except OSError as error:
            raise ImageError(
                f"{archive}: cannot be unpacked: {error.strerror or type(error).__name__}. Free some disk space, set "
                "TMPDIR to a larger disk, or unpack it yourself and give the folder."
            ) from None  # it quotes names of files
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError) as error:
            raise ImageError(
                f"{archive}: expected a ZIP archive, found one that cannot be unpacked ({type(error).__name__}). "
                "Copy, download or pack it again."
            ) from None  # it may quote names of files

    def _write(self, opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        """Write one member; a damaged one is noted and leaves nothing. No more is read than its ``file_size``."""
        target = self.folder / PurePosixPath(member.filename)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, _CHUNK)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
            target.unlink(missing_ok=True)
            self.damaged[member.filename] = "damaged in the ZIP archive"
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            self.damaged[member.filename] = "has the name of a folder of the ZIP archive"


def is_zip(path: Path) -> bool:
    """Whether the file is a ZIP archive by its content."""
    return path.is_file() and zipfile.is_zipfile(path)


def first_bytes_inside(archive: Path, number: int, members: int) -> Iterator[bytes]:
    """The first bytes of the first ``members`` files; nothing is unpacked, what cannot be read is empty."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in [member for member in opened.infolist() if not member.is_dir()][:members]:
                try:
                    with opened.open(member) as stream:
                        yield stream.read(number)
                except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
                    yield b""
    except (zipfile.BadZipFile, OSError):
        return


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise ImageError(
            f"{archive}: expected files inside the archive, found a path that leads out of it. Such an archive is "
            "made to overwrite other files; do not use it."
        )
    if member.flag_bits & 0x1:
        raise ImageError(f"{archive}: encrypted. Unpack it with its password and give the folder.")


def _check_room(archive: Path, needed: int, most_bytes: int, folder: Path) -> None:
    if needed > most_bytes:
        raise ImageError(
            f"{archive}: expected up to {most_bytes:,} bytes after unpacking, found {needed:,}. Unpack it yourself and "
            "give the folder."
        )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ImageError(
            f"{archive}: its files need {needed:,} bytes, found {free:,} free for temporary files. Free some, set "
            "TMPDIR to a larger disk, or unpack it yourself."
        )


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
