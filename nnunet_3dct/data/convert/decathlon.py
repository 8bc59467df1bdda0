"""Folders of the Medical Segmentation Decathlon, such as ``Task07_Pancreas``.

Volumes go through nnU-Net's own converter; what it makes of ``dataset.json`` is made here too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_3dct.data.convert.source import Source, SourceCase, list_volumes, note_hidden, relative, stem_of
from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.paths import DATASET_FILE


def is_decathlon(root: Path) -> bool:
    """Whether ``root`` holds ``imagesTr``, ``labelsTr`` and a ``dataset.json`` with ``modality`` and ``training``."""
    if not (root / DATASET_FILE).is_file() or not (root / "imagesTr").is_dir():
        return False
    content = read_json(root / DATASET_FILE, "Description of the dataset", SettingsError)
    return isinstance(content, dict) and "modality" in content and "training" in content


def read_decathlon(root: Path) -> Source:
    """Cases of a decathlon folder.

    Raises:
        SettingsError: its ``dataset.json`` is of another form.
    """
    content = read_json(root / DATASET_FILE, "Description of the dataset", SettingsError)
    source = Source("decathlon", root)
    try:
        channels = {int(number): str(name) for number, name in content["modality"].items()}
        labels = {int(number): str(name) for number, name in content["labels"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"{root / DATASET_FILE}: expected modality and labels as in the Medical Segmentation Decathlon, such as "
            f'{{"0": "CT"}} and {{"0": "background", "1": "pancreas"}}, found another form ({error!r}).'
        ) from error
    source.channel_names = [channels[number] for number in sorted(channels)]
    source.label_names = {number: name for number, name in labels.items() if number > 0}
    images, masks = _volumes(source, "imagesTr"), _volumes(source, "labelsTr")
    for case, path in images.items():
        mask = masks.pop(case, None)
        hint = f"; expected labelsTr/{case}.nii.gz"
        source.cases.append(SourceCase(case, "Tr", (path,), mask, split_volumes=True, hint=hint))
    for case, path in masks.items():
        source.left_out[relative(path, root)] = f"has no image; expected imagesTr/{case}.nii.gz"
    for case, path in _volumes(source, "imagesTs").items():
        source.cases.append(SourceCase(case, "Ts", (path,), split_volumes=True))
    for name in _listed(content):
        if not (root / name).is_file() and not (root / name.removeprefix("./")).is_file():
            source.left_out[name] = f"is listed in {DATASET_FILE}, but is not there"
    return source


def _volumes(source: Source, name: str) -> dict[str, Path]:
    folder = source.root / name
    if not folder.is_dir():
        return {}
    volumes, hidden = list_volumes(folder, deep=False)
    note_hidden([f"{name}/{file}" for file in hidden], source)
    return {stem_of(path): path for path in volumes}


def _listed(content: dict[str, Any]) -> list[str]:
    """Files that ``dataset.json`` lists; entries of another form are of no use to nnU-Net's converter either."""
    names = []
    for entry in [*content.get("training", []), *content.get("test", [])]:
        names += list(entry.values()) if isinstance(entry, dict) else [entry]
    return [name for name in names if isinstance(name, str)]
