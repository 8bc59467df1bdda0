from __future__ import annotations

import errno
import stat
import zipfile
from pathlib import Path

import pytest

from nnunet_3dct.dicom.archive import ExtractedArchive
from nnunet_3dct.errors import ImageError


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../out.dcm", "a/../../out.dcm", "/tmp/out.dcm", "..\\out.dcm", "C:\\out.dcm"])
def test_paths_that_lead_out_are_refused_and_nothing_is_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(ImageError, match="leads out of it"):
        ExtractedArchive(archive(tmp_path / "a.zip", **{"good": b"1", name: b"2"}))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "temporary"]


def test_a_small_archive_that_becomes_large_is_refused(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "a.zip", zeros=bytes(3_000_000))
    with pytest.raises(ImageError, match="expected up to 2,000,000 bytes after unpacking, found 3,000,000"):
        ExtractedArchive(bomb, most_bytes=2_000_000)


def test_no_more_is_unpacked_than_the_archive_declares(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "a.zip", zeros=bytes(5_000_000))
    content = bytearray(bomb.read_bytes())
    size = (5_000_000).to_bytes(4, "little")
    while size in content:
        place = content.index(size)
        content[place : place + 4] = (100).to_bytes(4, "little")
    bomb.write_bytes(content)
    found = ExtractedArchive(bomb, most_bytes=2_000_000)
    assert sum(path.stat().st_size for path in found.folder.rglob("*")) <= 2_000_000
    assert found.damaged == {"zeros": "damaged in the ZIP archive"}


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path) -> None:
    many = archive(tmp_path / "a.zip", **{f"f{number}": b"" for number in range(20)})
    with pytest.raises(ImageError, match="expected up to 10 files, found 20"):
        ExtractedArchive(many, most_files=10)


def test_links_are_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
        opened.writestr("file", b"1")
    found = ExtractedArchive(tmp_path / "a.zip")
    assert [path.name for path in found.folder.iterdir()] == ["file"]


def test_a_damaged_member_costs_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("bad", b"B" * 1000)
        opened.writestr("good", b"G" * 1000)
    path.write_bytes(path.read_bytes().replace(b"B" * 10, b"X" * 10, 1))
    found = ExtractedArchive(path)
    assert [item.name for item in found.folder.iterdir()] == ["good"]
    assert found.damaged == {"bad": "damaged in the ZIP archive"}


def test_a_broken_or_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", file=b"1" * 100)
    content = bytearray(path.read_bytes())
    (tmp_path / "cut.zip").write_bytes(content[:-30])
    with pytest.raises(ImageError, match="cannot be unpacked"):
        ExtractedArchive(tmp_path / "cut.zip")
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match="encrypted"):
        ExtractedArchive(path)


def test_disk_that_fills_up_is_not_taken_for_a_broken_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "study.zip", **{"Findmichnicht": b"0"})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "Findmichnicht")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(ImageError, match=r"cannot be unpacked: No space left on device\. Free some") as found:
        ExtractedArchive(path)
    assert "Findmichnicht" not in str(found.value)
