"""The challenge layout: ``train/subtype0/quiz_0_041.nii.gz`` (mask) beside ``quiz_0_041_0000.nii.gz`` (image).

The class is that of the folder. It stands in the names of the files too, and is never read from there: those of the
test cases would tell it.
"""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_3dct.data.convert.source import Source, SourceCase, list_volumes, note_hidden, relative, stem_of
from nnunet_3dct.formats.class_label_files import UNKNOWN

_FOLDERS = {
    "Tr": ("train", "training"),
    "Val": ("validation", "val", "valid"),
    "Ts": ("test", "testing"),
}
_SUBTYPE = re.compile(r"(?:subtype|class|type)[ _-]?([0-9]+)", re.IGNORECASE)
LABELS = {1: "pancreas", 2: "lesion"}


def is_challenge(root: Path) -> bool:
    """Whether ``root`` holds ``train/subtype0`` and the like."""
    return any(
        _SUBTYPE.fullmatch(folder.name)
        for part in _part_folders(root).values()
        for folder in part.iterdir()
        if folder.is_dir()
    )


def read_challenge(root: Path) -> Source:
    """Cases of a folder in the challenge layout."""
    source = Source("challenge", root, label_names=dict(LABELS))
    for part, folder in _part_folders(root).items():
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        classes = [path for path in inside if _SUBTYPE.fullmatch(path.name)]
        for path in classes:
            matched = _SUBTYPE.fullmatch(path.name)
            _add_cases(source, path, part, int(matched[1]) if matched else UNKNOWN)
        for path in inside:
            if path not in classes and list_volumes(path)[0]:
                source.left_out[relative(path, root)] = "expected a folder named subtype0, subtype1, ..."
        _add_cases(source, folder, part, UNKNOWN, deep=False)
    return source


def _part_folders(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        for part, names in _FOLDERS.items():
            if path.is_dir() and path.name.lower() in names:
                found.setdefault(part, path)
    return found


def _add_cases(source: Source, folder: Path, part: str, label: int, *, deep: bool = True) -> None:
    volumes, hidden = list_volumes(folder, deep=deep)
    note_hidden([f"{relative(folder, source.root)}/{name}" for name in hidden], source)
    stems = {stem_of(path): path for path in volumes}
    images: dict[str, list[tuple[int, Path]]] = {}
    masks: dict[str, Path] = {}
    for path in volumes:
        matched = re.fullmatch(r"(.+)_([0-9]{4})", stem_of(path), re.DOTALL)
        if matched and stem_of(path) + "_0000" not in stems:
            images.setdefault(matched[1], []).append((int(matched[2]), path))
        elif stem_of(path) in masks:
            source.left_out[relative(path, source.root)] = (
                f"the same name as {relative(masks[stem_of(path)], source.root)}; keep one of them"
            )
        else:
            masks[stem_of(path)] = path
    for case, numbered in images.items():
        numbers = [number for number, _ in sorted(numbered)]
        mask = masks.pop(case, None)
        name = relative(numbered[0][1], source.root)
        if numbers != list(range(len(numbers))):
            source.left_out[name] = f"expected channels 0000, 0001, ... once each, found {numbers}"
        elif label == UNKNOWN and part != "Ts":
            source.left_out[name] = "has no class; expected it in a folder named subtype0, subtype1, ..."
        else:
            files = tuple(path for _, path in sorted(numbered))
            source.cases.append(SourceCase(case, part, files, mask, label, hint=f"; expected {case}.nii.gz beside it"))
    for case, path in masks.items():
        source.left_out[relative(path, source.root)] = f"has no image; expected {case}_0000.nii.gz beside it"
