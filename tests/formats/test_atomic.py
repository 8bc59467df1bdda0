"""Writing JSON files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct.errors import OutputError
from nnunet_3dct.formats.atomic import write_json


def strict_json(path: Path) -> object:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_numpy_values_become_plain_and_non_finite_numbers_null(tmp_path):
    content = {
        "a": float("nan"),
        "b": np.float32(2),
        "c": (np.arange(2), None),
        3: [np.inf, np.bool_(True), np.array([1.5, np.nan])],
        "name": "Läsion",
    }
    write_json(content, tmp_path / "x.json")
    assert strict_json(tmp_path / "x.json") == {
        "a": None,
        "b": 2.0,
        "c": [[0, 1], None],
        "3": [None, True, [1.5, None]],
        "name": "Läsion",
    }


def test_failed_write_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "absent" / "x.json"):
        with pytest.raises(OutputError, match=rf"{path.name} cannot be written: .*Errno"):
            write_json({}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_previous_file_survives_a_failed_write(tmp_path, monkeypatch, step):
    path = tmp_path / "x.json"
    write_json({"a": 1}, path)

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        write_json({"a": 2}, path)
    assert strict_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_content_that_json_cannot_hold_leaves_the_previous_file(tmp_path):
    path = tmp_path / "x.json"
    write_json({"a": 1}, path)
    with pytest.raises(TypeError):
        write_json({"a": object()}, path)
    assert strict_json(path) == {"a": 1}
