"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

PLAIN_NIFTI = "a NIfTI image that is not compressed"
PACKED_NIFTI = "a NIfTI image compressed by gzip"
PACKED = "a gzip-compressed file"
DAMAGED = "a damaged gzip-compressed file"
_GZIP = b"\x1f\x8b"
_NIFTI_SIZES = (348, 540)

# first bytes -> what to call the file
_SIGNATURES = (
    (_GZIP, PACKED),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"BZh", "a bzip2-compressed file"),
    (b"\xfd7zXZ", "an xz-compressed file"),
    (b"\x28\xb5\x2f\xfd", "a zstd-compressed file"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x00\x05\x16\x07", "an AppleDouble file of macOS, which holds no image"),
    (b"version https://git-lfs", "a pointer of Git LFS (fetch the content with `git lfs pull`)"),
    (b"NRRD", "an NRRD image"),
    (b"ObjectType", "a MetaImage (.mha or .mhd)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"%PDF", "a PDF document"),
    (b"\x00\x00\x00\x00\x00\x00\x00\x00", "a file that begins with zeros"),
)


def is_gzip(path: Path) -> bool:
    """Whether the file is compressed by gzip."""
    return first_bytes(path, 2) == _GZIP


def is_nifti(start: bytes) -> bool:
    """Whether a file that begins with ``start`` (348 bytes or more) is NIfTI-1 or -2, of either byte order."""
    if len(start) < 348:
        return False
    sizes = {struct.unpack(order + "i", start[:4])[0] for order in "<>"}
    return bool(sizes & set(_NIFTI_SIZES)) and (start[344:347] in (b"n+1", b"ni1") or start[4:7] in (b"n+2", b"ni2"))


def first_bytes(path: Path, number: int) -> bytes:
    """The first bytes of the file, as they are stored."""
    with Path(path).open("rb") as stream:
        return stream.read(number)


def what_is(path: Path) -> str | None:
    """What the file is, such as ``"a ZIP archive"``; None where its first bytes do not tell."""
    start = first_bytes(path, 1024)
    if is_nifti(start):
        return PLAIN_NIFTI
    if start.startswith(_GZIP):
        try:
            with gzip.open(path) as stream:
                inside = stream.read(1024)
        except (EOFError, OSError, zlib.error):
            return DAMAGED
        if is_nifti(inside):
            return PACKED_NIFTI
        content = _plain(inside)
        return f"{PACKED} that holds {content}" if content else PACKED
    return _plain(start)


def _plain(start: bytes) -> str | None:
    if start[128:132] == b"DICM":
        return "a DICOM file"
    if start[257:262] == b"ustar":
        return "a tar archive"
    for signature, name in _SIGNATURES:
        if start.startswith(signature):
            return name
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML), as a server sends in place of a file that needs a login"
    if start and all(byte >= 32 or byte in b"\t\r\n\f" for byte in start):
        return "text: " + repr(start[:40].decode("utf-8", "replace").splitlines()[0])
    return None
