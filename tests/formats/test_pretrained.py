"""Weights to start from, in the forms in which they are passed around."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.pretrained import read_pretrained
from tests.formats.test_checkpoint import Marker, assert_same, stock_checkpoint

STATE = {"encoder.weight": torch.arange(6.0).reshape(2, 3), "decoder.bias": torch.ones(2)}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("key", [None, "state_dict", "model", "network_weights"])
def test_state_dict_bare_or_under_a_key_with_any_prefix(key: str | None, prefix: str, tmp_path: Path) -> None:
    content: Any = prefixed(prefix) if key is None else {key: prefixed(prefix), "epoch": 3}
    torch.save(content, tmp_path / "unet.pth")
    found = read_pretrained(tmp_path / "unet.pth")
    assert_same(dict(found.unet_weights), STATE)
    assert (found.source, found.fold, found.dataset, found.has_head) == (str(tmp_path / "unet.pth"), None, None, False)


def test_checkpoint_of_nnunet_is_whole(tmp_path: Path) -> None:
    torch.save(stock_checkpoint(), tmp_path / "checkpoint_final.pth")
    assert_same(dict(read_pretrained(tmp_path / "checkpoint_final.pth")), stock_checkpoint())


@pytest.mark.parametrize(
    ("folders", "chosen"),
    [(["fold_0", "fold_1"], "fold_0"), (["fold_all"], "fold_all"), (["fold_all", "fold_0"], "fold_0"), (["."], ".")],
)
def test_folder_of_a_model_or_a_fold_stands_for_its_final_checkpoint(
    folders: list[str], chosen: str, tmp_path: Path
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(exist_ok=True)
        torch.save(stock_checkpoint(), tmp_path / folder / "checkpoint_final.pth")
        torch.save({}, tmp_path / folder / "checkpoint_best.pth")
    assert read_pretrained(tmp_path).source == str(tmp_path / chosen / "checkpoint_final.pth")


def test_folder_without_a_checkpoint_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "trainer__plans__3d_fullres" / "fold_0").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"fold_0/checkpoint_final\.pth or fold_all/.*found trainer__plans__3d"):
        read_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [([1], "list"), ({"model": {"a": 1}}, "model"), ({"a": torch.ones(1), "b": "text"}, "a, b")],
)
def test_file_without_weights_is_refused(content: Any, found: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth: expected nnU-Net's key network_weights.*found .*{found}"):
        read_pretrained(tmp_path / "other.pth")


def test_object_in_a_state_dict_is_refused_and_not_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "extra": Marker(tmp_path / "executed")}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="expected tensors and plain values"):
        read_pretrained(tmp_path / "foreign.pth")
    assert not (tmp_path / "executed").exists()
