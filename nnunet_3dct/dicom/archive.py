"""ZIP archives, unpacked into a temporary folder without trusting them."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
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
            most_bytes: that its files may have together, counted while they are written.
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
                left = most_bytes
                for member in members:
                    if not stat.S_ISLNK(member.external_attr >> 16):
                        left -= self._write(opened, member, left, _too_large(archive, most_bytes, "more"))
        except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, NotImplementedError) as error:
            raise ImageError(
                f"{archive}: expected a ZIP archive, found one that cannot be unpacked ({type(error).__name__}). "
                "Copy, download or pack it again."
            ) from error

    def _write(self, opened: zipfile.ZipFile, member: zipfile.ZipInfo, left: int, too_large: ImageError) -> int:
        """Write one member, and return its bytes; a damaged one is noted and leaves nothing."""
        target = self.folder / PurePosixPath(member.filename)
        written = 0
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as source, target.open("wb") as stream:
                while chunk := source.read(_CHUNK):
                    written += len(chunk)
                    if written > left:
                        raise too_large
                    stream.write(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
            target.unlink(missing_ok=True)
            self.damaged[member.filename] = "damaged in the ZIP archive"
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            self.damaged[member.filename] = "has the name of a folder of the ZIP archive"
        return written


def is_zip(path: Path) -> bool:
    """Whether the file is a ZIP archive by its content."""
    return path.is_file() and zipfile.is_zipfile(path)


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
        raise _too_large(archive, most_bytes, f"{needed:,}")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ImageError(
            f"{archive}: its files need {needed:,} bytes, found {free:,} free for temporary files. Free some, set "
            "TMPDIR to a larger disk, or unpack it yourself."
        )


def _too_large(archive: Path, most_bytes: int, found: str) -> ImageError:
    return ImageError(
        f"{archive}: expected up to {most_bytes:,} bytes after unpacking, found {found}. Unpack it yourself and give "
        "the folder."
    )


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
