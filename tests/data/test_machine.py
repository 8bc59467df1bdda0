"""What the doctor says of the machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_3dct.data import machine, resources
from nnunet_3dct.data.installation import NNUNetLocation
from nnunet_3dct.data.resources import GIB

LOCATION = NNUNetLocation(Path("/site/nnunetv2"), (), True, False)


def fake_torch(monkeypatch: pytest.MonkeyPatch, *, cuda: str | None, available: bool = False) -> None:
    cards = SimpleNamespace(
        is_available=lambda: available,
        device_count=lambda: 1,
        get_device_name=lambda index: "H100",
        mem_get_info=lambda index: (70 * GIB, 80 * GIB),
    )
    torch = SimpleNamespace(__version__="2.9", version=SimpleNamespace(cuda=cuda), cuda=cards)
    monkeypatch.setattr("importlib.import_module", lambda name: torch)


def test_versions_name_python_and_every_package() -> None:
    message = machine.check_versions().message
    assert "Python 3" in message and all(name in message for name in (*machine.PACKAGES, "nnunet-3dct"))


def test_location_is_said_with_copies_and_editable_installs() -> None:
    assert machine.check_location(LOCATION).message == "/site/nnunetv2"
    copies = NNUNetLocation(Path("/site/nnunetv2"), (Path("/shadow/nnunetv2"),), True, False)
    finding = machine.check_location(copies)
    assert finding.ok and finding.warning and "/shadow/nnunetv2" in finding.message
    editable = NNUNetLocation(Path("/src/nnunetv2"), (), True, True)
    assert "editable install" in machine.check_location(editable).message
    assert not machine.check_location(NNUNetLocation(None, (), False, False)).ok


@pytest.mark.parametrize(
    ("cuda", "available", "card", "ok", "words"),
    [
        ("12.8", True, True, True, "12.8: H100 (70.0 of 80.0 GiB free)"),
        (None, False, True, False, "is a build for the CPU"),
        ("12.8", False, True, False, "cannot use it"),
        (None, False, False, True, "no card of NVIDIA"),
    ],
)
def test_card_that_torch_cannot_use_fails(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, available: bool, card: bool, ok: bool, words: str
) -> None:
    monkeypatch.setattr(machine, "_has_nvidia_card", lambda: card)
    fake_torch(monkeypatch, cuda=cuda, available=available)
    finding = machine.check_cuda()
    assert finding.ok is ok and words in finding.message


def test_memory_is_that_of_the_system_here() -> None:
    total, available = resources.memory_of_machine()
    assert total is not None and available is not None and 0 < available <= total


@pytest.mark.parametrize(("free", "warning"), [(4, True), (64, False)])
def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch, free: int, warning: bool) -> None:
    monkeypatch.setattr(resources, "memory_of_machine", lambda: (64 * GIB, free * GIB))
    assert resources.check_memory().warning is warning


def test_full_disk_is_a_warning_also_where_the_folder_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"nnUNet_preprocessed": str(tmp_path / "a" / "b"), "nnUNet_results": ""}
    usage = shutil.disk_usage(tmp_path)
    found = {finding.name: finding for finding in resources.check_disk(environ)}
    assert set(found) == {"disk of nnUNet_preprocessed", "disk of temporary files"}
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: usage._replace(free=3 * GIB))
    finding = resources.check_disk(environ)[0]
    assert finding.warning and finding.message.startswith("3 GiB free; little")
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20))
    assert "--shm-size" in resources.check_shared_memory().message


def test_folder_that_may_not_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"nnUNet_results": str(tmp_path)}
    assert resources.check_writable(environ) == []

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(resources.tempfile, "NamedTemporaryFile", refuse)
    (finding,) = resources.check_writable(environ)
    assert not finding.ok and "Permission denied" in finding.message


@pytest.mark.parametrize(
    ("environ", "warnings", "fails"),
    [
        ({"nnUNet_n_proc_DA": "3"}, 0, 0),
        ({"nnUNet_n_proc_DA": "3", "OMP_NUM_THREADS": "64"}, 1, 0),
        ({"nnUNet_n_proc_DA": "many"}, 0, 1),
        ({}, 1, 0),
    ],
)
def test_more_threads_than_cpus_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], warnings: int, fails: int
) -> None:
    monkeypatch.setattr(resources, "usable_cpus", lambda: 4)
    findings = resources.check_threads(environ)
    assert findings[0].message.startswith("4 CPUs")
    assert sum(finding.warning for finding in findings) == warnings
    assert sum(not finding.ok for finding in findings) == fails
