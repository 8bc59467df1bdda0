"""Checkpoints: written whole or not at all, read without running code."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_3dct.errors import CheckpointError, OutputError
from nnunet_3dct.formats.checkpoint import read_checkpoint, write_checkpoint
from nnunet_3dct.formats.torch_files import plain
from tests.utils import empty, truncate


def stock_checkpoint() -> dict:
    """The keys of nnU-Net's ``save_checkpoint`` with the NumPy scalars that its log holds."""
    return {
        "network_weights": {"encoder.weight": torch.arange(6.0).reshape(2, 3)},
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {
            "mean_fg_dice": [np.float64(0.5), np.float32(0.25)],
            "dice_per_class_or_region": [[np.float64(0.5), np.float16(0.25)]],
            "epoch_start_timestamps": [1700000000.5],
        },
        "_best_ema": np.float64(0.5),
        "current_epoch": np.int64(3),
        "init_args": {"fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }


def assert_same(found: object, expected: object) -> None:
    """Equal values and tensors, whatever numeric type holds them."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)  # type: ignore[arg-type]
    else:
        assert found == expected


class Marker:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# writing


def test_written_file_is_readable_by_strict_torch_load(tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    content = stock_checkpoint()
    write_checkpoint({**content, "path": Path("a/b"), "counts": np.arange(3)}, path)
    found = torch.load(path, weights_only=True)
    assert found.pop("path") == "a/b"
    assert found.pop("counts") == [0, 1, 2]
    content["init_args"]["device"] = "cpu"
    assert_same(found, content)
    assert type(found["_best_ema"]) is float and type(found["current_epoch"]) is int
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_plain_keeps_tensors_and_the_kind_of_sequence():
    tensor = torch.ones(2)
    found = plain({"a": (np.float32(1), [np.bool_(True), tensor]), 2: torch.device("cpu")})
    assert found == {"a": (1.0, [True, tensor]), 2: "cpu"}
    assert found["a"][1][1] is tensor and type(found["a"][1][0]) is bool


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(28, "No space left on device"), OutputError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_failing_save_leaves_the_previous_file_and_no_temporary_one(tmp_path, monkeypatch, error, told):
    path = tmp_path / "checkpoint_latest.pth"
    write_checkpoint(stock_checkpoint(), path)
    before = path.read_bytes()

    def full_disk(content: object, stream) -> None:
        stream.write(b"half a file")
        raise error

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(told):
        write_checkpoint({**stock_checkpoint(), "current_epoch": 4}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_previous_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint_latest.pth"
    write_checkpoint(stock_checkpoint(), path)
    save = torch.save

    def watch(content: object, stream) -> None:
        assert read_checkpoint(path)["current_epoch"] == 3
        save(content, stream)
        assert read_checkpoint(path)["current_epoch"] == 3

    monkeypatch.setattr(torch, "save", watch)
    write_checkpoint({**stock_checkpoint(), "current_epoch": 4}, path)
    assert read_checkpoint(path)["current_epoch"] == 4


FULL_DISK = """
import resource, sys, torch
from nnunet_3dct.errors import OutputError
from nnunet_3dct.formats.checkpoint import read_checkpoint, write_checkpoint
path = sys.argv[1]
write_checkpoint({"network_weights": {"w": torch.zeros(10)}, "current_epoch": 1}, path)
for limit in (1000, 100_000, 3_990_000):  # torch's writer fails in three different ways
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_checkpoint({"network_weights": {"w": torch.zeros(1_000_000)}, "current_epoch": 2}, path)
    except OutputError as error:
        assert path in str(error), error
        assert read_checkpoint(path)["current_epoch"] == 1
        print("told")
"""


def test_disk_that_fills_up_is_told_at_whatever_byte_and_costs_nothing(tmp_path):
    path = tmp_path / "checkpoint_latest.pth"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["told"] * 3, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_errors_while_saving_are_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    def lost_device(content: object, stream) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch, "save", lost_device)
    with pytest.raises(RuntimeError, match="launch failure"):
        write_checkpoint(stock_checkpoint(), tmp_path / "checkpoint_latest.pth")


WRITER = """
import sys, torch
from nnunet_3dct.formats.checkpoint import write_checkpoint
path, n = sys.argv[1], 0
print("ready", flush=True)
while True:
    n += 1
    write_checkpoint({"network_weights": {"w": torch.full((500_000,), float(n))}, "current_epoch": n}, path)
    print(n, flush=True)
"""


def test_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "checkpoint_latest.pth"
    for delay in (0.0, 0.003, 0.007, 0.012, 0.02, 0.031):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            assert writer.stdout.readline() == "1\n"
            time.sleep(delay)
            writer.kill()
        checkpoint = read_checkpoint(path)
        assert bool((checkpoint["network_weights"]["w"] == checkpoint["current_epoch"]).all())
    write_checkpoint(stock_checkpoint(), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing is left of the killed writes


# reading


def test_stock_checkpoint_with_numpy_scalars_is_read(tmp_path):
    torch.save(stock_checkpoint(), tmp_path / "stock.pth")
    with pytest.raises(pickle.UnpicklingError):  # why read_checkpoint is needed
        torch.load(tmp_path / "stock.pth", weights_only=True)
    assert_same(read_checkpoint(tmp_path / "stock.pth"), stock_checkpoint())


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_of_numpy_1_and_2_are_read(tmp_path, module):
    torch.save(stock_checkpoint(), tmp_path / "here.pth")
    with (
        zipfile.ZipFile(tmp_path / "here.pth") as here,
        zipfile.ZipFile(tmp_path / "there.pth", "w") as there,
    ):
        for name in here.namelist():
            content = here.read(name)
            if name.endswith("data.pkl"):
                for written in (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"):
                    content = content.replace(written, b"c" + module.encode() + b"\n")
                assert f"c{module}\nscalar".encode() in content
            there.writestr(name, content)
    assert_same(read_checkpoint(tmp_path / "there.pth"), stock_checkpoint())


def test_reading_leaves_strict_loading_strict_elsewhere(tmp_path):
    torch.save(stock_checkpoint(), tmp_path / "stock.pth")
    read_checkpoint(tmp_path / "stock.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "stock.pth", weights_only=True)


@pytest.mark.parametrize("new_format", [True, False])
def test_custom_object_is_refused_and_not_executed(tmp_path, new_format):
    path, marker = tmp_path / "foreign.pth", tmp_path / "executed"
    content = {**stock_checkpoint(), "extra": Marker(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"foreign\.pth: expected tensors and plain values.*unknown origin"):
        read_checkpoint(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file is indeed harmful
    assert marker.exists()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_truncated_file_is_named_with_its_size(tmp_path, fraction):
    path = tmp_path / "checkpoint_final.pth"
    write_checkpoint(stock_checkpoint(), path)
    truncate(path, fraction)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"Checkpoint {path} ({path.stat().st_size} bytes) cannot be read: ")
    assert "cut off" in str(caught.value)


@pytest.mark.parametrize("mmap", [True, False])
def test_file_in_the_form_of_old_torch_is_read(tmp_path, mmap):
    path = tmp_path / "old.pth"
    torch.save(stock_checkpoint(), path, _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(path, mmap=mmap), stock_checkpoint())


@pytest.mark.parametrize("fraction", [0.005, 0.1, 0.5, 0.99])
def test_truncated_file_in_the_form_of_old_torch_is_called_cut_off(tmp_path, fraction):
    path = tmp_path / "old.pth"
    torch.save(stock_checkpoint(), path, _use_new_zipfile_serialization=False)
    truncate(path, fraction)
    with pytest.raises(CheckpointError, match=r"old\.pth \(\d+ bytes\) cannot be read: .*cut off"):
        read_checkpoint(path, mmap=True)


@pytest.mark.parametrize("content", [b"<html>404</html>", b"hello", pickle.dumps({"network_weights": {}})])
def test_file_that_torch_did_not_write_is_not_called_cut_off(tmp_path, content):
    (tmp_path / "page.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"expected a file written by torch\.save, found one that begins with"):
        read_checkpoint(tmp_path / "page.pth")


def test_empty_and_missing_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"a\.pth \(0 bytes\) cannot be read"):
        read_checkpoint(empty(tmp_path / "a.pth"))
    with pytest.raises(CheckpointError, match=r"b\.pth: expected a file, found none"):
        read_checkpoint(tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="expected a file, found none"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(("content", "found"), [({"state_dict": {}}, "state_dict"), ([1], "list")])
def test_file_that_is_no_nnunet_checkpoint_is_refused(tmp_path, content, found):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth: expected nnU-Net's key network_weights, found {found}"):
        read_checkpoint(tmp_path / "other.pth")
