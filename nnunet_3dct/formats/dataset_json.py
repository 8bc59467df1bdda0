"""``dataset.json`` of nnU-Net v2: read, and the types of its entries checked.

nnU-Net dies in the middle of planning over an entry of another form, such as those of nnU-Net v1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import listing
from nnunet_3dct.formats.image_readers import DatasetJson

NAME = "dataset.json"
REQUIRED_KEYS = ("labels", "channel_names", "numTraining", "file_ending")


def read_dataset_json(folder: Path) -> tuple[DatasetJson | None, list[str]]:
    """Content of the file in a dataset's folder (None when nothing can be done with it) and what is wrong with it."""
    path = Path(folder) / NAME
    if not Path(folder).is_dir():
        return None, [f"{folder}: expected the folder of a raw dataset, found no such folder."]
    if not path.is_file():
        return None, [f"{path}: expected nnU-Net's description of the dataset, found no such file."]
    problems = []
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            problems.append(f"{path}: expected UTF-8, found a byte order mark at its start. Save it without (BOM).")
        content = json.loads(text.removeprefix("\ufeff"))
    except ValueError as error:
        return None, [f"{path}: expected JSON, found text that is not ({error})."]
    entries = entry_problems(content)
    problems += [f"{path}: {problem}" for problem in entries.values()]
    return (None if set(entries) - {"numTraining"} else content), problems


def entry_problems(content: Any) -> dict[str, str]:
    """What is wrong with the entries, by key; empty when nnU-Net v2 can use them.

    Examples:
        >>> for problem in entry_problems({"labels": {"background": 0, "organ": 1}, "channel_names": ["CT"],
        ...                                "numTraining": 4, "file_ending": ".nii.gz"}).values():
        ...     print(problem)
        channel_names: expected number -> name, found the list ["CT"]. Write "channel_names": {"0": "CT"}.
    """
    if not isinstance(content, dict):
        return {"": f"expected an object with the keys {listing(REQUIRED_KEYS)}, found {_kind(content)}."}
    problems = {}
    missing = [key for key in REQUIRED_KEYS if key not in content]
    if missing:
        hint = ""
        if "modality" in content and "channel_names" in missing:
            names = _json(content["modality"])
            hint = f' modality is its name in nnU-Net v1: write "channel_names": {names} in its place.'
        problems["missing"] = (
            f"expected the keys {listing(REQUIRED_KEYS)}, found no {listing(missing)}. Add them.{hint}"
        )
    for key, check in (
        ("labels", _labels),
        ("channel_names", _channel_names),
        ("numTraining", _num_training),
        ("file_ending", _file_ending),
    ):
        problem = check(content[key]) if key in content else None
        if problem:
            problems[key] = f"{key}: {problem}"
    return problems


def num_channels(content: Mapping[str, Any]) -> int:
    """Number of channels that dataset.json, or an old model's, names."""
    return len(content.get("channel_names") or content.get("modality", {}))


def _labels(labels: Any) -> str | None:
    expected = "expected name -> value"
    if isinstance(labels, list):
        turned = {str(name): number for number, name in enumerate(labels)}
        return f'{expected}, found the list {_json(labels)}. Write "labels": {_json(turned)}.'
    if not isinstance(labels, dict):
        return f'{expected}, such as {{"background": 0, "organ": 1}}, found {_kind(labels)}.'
    if labels and all(
        key.isdecimal() and isinstance(name, str) and not name.isdecimal() for key, name in labels.items()
    ):
        turned = {name: int(value) for value, name in labels.items()}
        return f'{expected}, found value -> name, the form of nnU-Net v1. Write "labels": {_json(turned)}.'
    for name, value in labels.items():
        members = value if isinstance(value, list) and value else [value]
        if not all(_is_whole(member) for member in members):
            return f"expected a whole number, or a list of them for a region, found {_json(value)} for {name}."
    if "background" not in labels:
        close = [name for name in labels if name.lower() == "background"]
        hint = f" Write background in place of {close[0]}." if close else ""
        return f"cannot be used by nnU-Net, which expects background with the value 0, found {_json(labels)}.{hint}"
    return None


def _channel_names(names: Any) -> str | None:
    expected = "expected number -> name"
    if isinstance(names, str):
        names = [names]
    if isinstance(names, list):
        turned = {str(number): name for number, name in enumerate(names)}
        return f'{expected}, found the list {_json(names)}. Write "channel_names": {_json(turned)}.'
    if not isinstance(names, dict) or not names:
        return f'{expected}, such as {{"0": "CT"}}, found {_json(names)}.'
    if all(isinstance(value, int) or str(value).isdecimal() for value in names.values()):
        turned = {str(number): name for name, number in names.items()}
        return f'{expected}, found name -> number. Write "channel_names": {_json(turned)}.'
    if sorted(names) != sorted(str(number) for number in range(len(names))):
        return f"{expected} with the numbers 0, 1, 2, ... of the files, found {_json(names)}."
    odd = [name for name in names.values() if not isinstance(name, str)]
    return f"{expected}, found {_json(odd[0])} for a name." if odd else None


def _num_training(number: Any) -> str | None:
    if isinstance(number, int | float) and not isinstance(number, bool):
        return None
    remedy = f' Write "numTraining": {int(number)}.' if isinstance(number, str) and number.strip().isdecimal() else ""
    return f"expected a number, found {_kind(number)}.{remedy}"


def _file_ending(ending: Any) -> str | None:
    if isinstance(ending, str) and ending.startswith("."):
        return None
    remedy = f' Write "file_ending": ".{ending}".' if isinstance(ending, str) and ending else ""
    return f"expected an ending with its dot, such as .nii.gz, found {_kind(ending)}.{remedy}"


def _is_whole(value: Any) -> bool:
    """Whether nnU-Net can take the value for a label; it turns text with digits into a number."""
    if isinstance(value, bool):
        return False
    return (isinstance(value, int | float) and value == int(value)) or (isinstance(value, str) and value.isdecimal())


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {_json(value)}"
    return f"the list {_json(value)}" if isinstance(value, list) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
