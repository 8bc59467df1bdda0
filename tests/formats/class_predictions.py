"""Makers of class files."""

from __future__ import annotations

from pathlib import Path

from nnunet_3dct.formats.class_files import class_file, write_class_file

PROBABILITIES = [0.125, 0.625, 0.25]
NAMES = ["solid", 'cys"tic, large', "größe\nzwei"]


def write(folder: Path, case: str, probabilities: list[float] = PROBABILITIES, **content: object) -> None:
    made = class_file(probabilities, None, folds=[0], head_weights={"0": "abc"})
    write_class_file({**made, **content}, folder, case)  # type: ignore[typeddict-item]
