"""Plain values of a checkpoint without torch: the same as torch reads, and no code is run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

from nnunet_3dct.formats.checkpoint import read_checkpoint, write_checkpoint
from nnunet_3dct.formats.checkpoint_values import read_plain_values, started_from

START = {"path": "stage_1/fold_0/checkpoint_best.pth", "fold": 0}


def test_values_are_those_that_torch_reads(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.InstanceNorm3d(4, affine=True))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 1, 6, 6, 6)).sum().backward()
    optimizer.step()
    checkpoint = {
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "mt_started_from": START,
        "logging": {"losses": [np.float64(0.5), 0.25], "epochs": (1, 2)},
        "init_args": {"plans": {"a": [1, None, True, "ü"]}},
    }
    path = tmp_path / "checkpoint_final.pth"
    write_checkpoint(checkpoint, path)
    read, expected = read_plain_values(path), read_checkpoint(path)
    for key in ("mt_started_from", "logging", "init_args"):
        assert read[key] == expected[key]
    assert read["optimizer_state"]["param_groups"] == expected["optimizer_state"]["param_groups"]
    assert list(read["optimizer_state"]["state"]) == [0, 1, 2, 3]
    assert started_from(path) == START


def test_numpy_scalars_of_stock_checkpoints_are_passed_over(tmp_path: Path) -> None:
    torch.save({"losses": [np.float64(0.5)], "mt_started_from": START}, tmp_path / "stock.pth")
    assert started_from(tmp_path / "stock.pth") == START


def test_no_code_in_the_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    with zipfile.ZipFile(tmp_path / "evil.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": Evil(), "mt_started_from": START}, protocol=2))
    assert started_from(tmp_path / "evil.pth") == START
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_states_nothing(tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut off")
    torch.save({"a": 1}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("cut.pth", "old.pth", "missing.pth"):
        assert read_plain_values(tmp_path / name) == {}
        assert started_from(tmp_path / name) == {}


def test_torch_is_not_imported() -> None:
    code = "import sys, nnunet_3dct.formats.checkpoint_values; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
