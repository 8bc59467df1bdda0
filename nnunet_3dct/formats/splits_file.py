"""nnU-Net's ``splits_final.json``: which cases each fold trains on and which it validates."""

from __future__ import annotations

from pathlib import Path

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.paths import splits_path

PARTS = ("train", "val")
Splits = list[dict[str, list[str]]]


def read_splits(source: Path | str) -> Splits:
    """Read nnU-Net's ``splits_final.json``.

    Args:
        source: the file, or the full name of a dataset whose splits are meant.

    Raises:
        SettingsError: it is missing, or not a list of folds with ``train`` and ``val``.
    """
    path = source if isinstance(source, Path) else splits_path(source)
    if not path.is_file():
        raise SettingsError(
            f"{path}: expected the splits of the dataset, found none. nnUNet3DCT_splits writes them, and so does the "
            "first training."
        )
    remedy = "Restore it, or write it anew: nnUNet3DCT_splits --overwrite."
    content = read_json(path, "Splits", SettingsError, remedy)
    form = 'a list with {"train": [cases], "val": [cases]} for each fold'
    if not isinstance(content, list) or not content:
        raise SettingsError(f"{path}: expected {form}, found {type(content).__name__ if content else 'none'}. {remedy}")
    for number, fold in enumerate(content):
        if not isinstance(fold, dict) or not all(_is_list_of_cases(fold.get(part)) for part in PARTS):
            raise SettingsError(f"{path}: expected {form}, found something else for fold {number}. {remedy}")
    return content


def _is_list_of_cases(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(case, str) for case in value)
