"""``label_codes`` in dataset.json: which code of a terminology stands for a label in DICOM results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_3dct.errors import SettingsError

KEY = "label_codes"
KINDS = ("organ", "lesion")
_LONGEST = {"code": 16, "scheme": 16, "meaning": 64}  # characters that DICOM leaves for them
_FORM = '{"label": {"code": "15776009", "scheme": "SCT", "meaning": "Pancreas"}}'


@dataclass(frozen=True)
class LabelCode:
    """A code for a label.

    Attributes:
        code: value, such as ``15776009``.
        scheme: designator of the terminology, such as ``SCT`` for SNOMED CT.
        meaning: in words.
        kind: ``organ`` or ``lesion``; None where the label's name tells.
    """

    code: str
    scheme: str
    meaning: str
    kind: str | None = None


def read_label_codes(dataset_json: Mapping[str, Any]) -> dict[str, LabelCode]:
    """Codes by label, as dataset.json gives them; empty without the key.

    Raises:
        SettingsError: an entry cannot be used.

    Examples:
        >>> read_label_codes({"labels": {"background": 0, "pancreas": 1}, "label_codes": {
        ...     "pancreas": {"code": "15776009", "scheme": "SCT", "meaning": "Pancreas"}}})["pancreas"].code
        '15776009'
    """
    problems = label_code_problems(dataset_json)
    if problems:
        raise SettingsError(f"dataset.json, {problems[0]}")
    return {
        name: LabelCode(entry["code"], entry["scheme"], entry["meaning"], entry.get("kind"))
        for name, entry in dataset_json.get(KEY, {}).items()
    }


def label_code_problems(dataset_json: Mapping[str, Any]) -> list[str]:
    """What is wrong with the entries; empty when they can be used or are not there."""
    entries = dataset_json.get(KEY, {})
    if not isinstance(entries, dict):
        return [f"{KEY}: expected {_FORM}, found {json.dumps(entries)}."]
    labels = dataset_json.get("labels", {})
    problems = []
    for name, entry in entries.items():
        where = f"{KEY}, {name}"
        if name not in labels:
            problems.append(f"{where}: expected one of the labels {json.dumps(list(labels))}, found another name.")
        elif not isinstance(entry, dict) or not set(_LONGEST) <= set(entry):
            problems.append(f"{where}: expected the keys code, scheme and meaning, found {json.dumps(entry)}.")
        else:
            problems += [f"{where}, {problem}" for problem in _entry_problems(entry)]
    return problems


def _entry_problems(entry: Mapping[str, Any]) -> list[str]:
    problems = []
    for key, longest in _LONGEST.items():
        text = entry[key]
        if not isinstance(text, str) or not text.strip() or len(text) > longest or "\\" in text:
            found = json.dumps(text, ensure_ascii=False)
            problems.append(f"{key}: expected text of 1 to {longest} characters without a backslash, found {found}.")
    if entry.get("kind") not in (None, *KINDS):
        problems.append(f"kind: expected organ or lesion, found {json.dumps(entry['kind'])}.")
    return problems
