"""Any folders of images and masks: which mask belongs to which image, and what the case is called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.data.convert.source import Source, SourceCase, list_volumes, note_hidden, relative, stem_of
from nnunet_3dct.errors import SettingsError, listing

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "ct", "cts", "scans", "volumes", "data", "nifti")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "segmentations", "segmentation", "segs", "seg", "annotations", "gt",
                "ground_truth", "rois", "roi")  # fmt: skip
TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm")
_MASK_WORDS = r"mask|masks|seg|segmentation|label|labels|labelmap|gt|roi|annotation"
_IMAGE_WORDS = r"image|img|ct|scan|volume|vol"


@dataclass(frozen=True)
class Folders:
    """Where images and masks are: folders, or patterns such as ``*/ct.nii.gz``, relative to the source or not."""

    images: str | None = None
    masks: str | None = None
    test_images: str | None = None


def find_folders(root: Path, stated: Folders) -> Folders:
    """Fill in what is not stated, by the usual names of folders in ``root``."""
    images, masks = stated.images, stated.masks
    inside = {path.name.casefold(): path.name for path in sorted(root.iterdir()) if path.is_dir()}
    if images is None:
        images = next((inside[name] for name in IMAGE_FOLDERS if name in inside), None)
    if masks is None:
        masks = next((inside[name] for name in MASK_FOLDERS if name in inside and inside[name] != images), None)
    return Folders(images, masks, stated.test_images)


def find_table(root: Path) -> Path | None:
    """The only table in ``root``.

    Raises:
        SettingsError: there are several.
    """
    tables = [
        path
        for path in sorted(root.iterdir())
        if path.is_file() and path.suffix.lower() in TABLE_ENDINGS and not path.name.startswith((".", "~$"))
        and not path.name.lower().startswith(("readme", "license"))
    ]  # fmt: skip
    if len(tables) > 1:
        raise SettingsError(
            f"{root}: expected one table of classes, found {listing([path.name for path in tables])}. Say which one."
        )
    return tables[0] if tables else None


def read_folders(root: Path, stated: Folders, *, known: Sequence[str] = ()) -> Source:
    """Cases of folders of images and masks.

    A mask belongs to the image of the same name, also where one of the two ends in ``_mask``, ``_seg`` and the like; in
    folders of one case each it belongs to the image in the same folder.

    Args:
        root: of the source.
        stated: where images and masks are.
        known: names of cases in the table of classes; they tell a channel number from a part of the name.

    Raises:
        SettingsError: there are no images where they should be.
    """
    folders = find_folders(root, stated)
    if folders.images is None or folders.masks is None:
        missing = "images" if folders.images is None else "masks"
        raise SettingsError(
            f"{root}: expected folders of images and of masks, found no {missing}. Say where they are ({missing}: a "
            "folder, or a pattern such as */ct.nii.gz)."
        )
    source = Source("folders", root)
    images = _files(root, folders.images, source, "images")
    masks = Masks(_files(root, folders.masks, source, "masks", without=images), root, source)
    for name, files in _cases(images, root, masks.names | {_folded(name) for name in known}, source).items():
        case, mask = masks.take(name, _without_word(name, _IMAGE_WORDS))
        hint = "" if mask else masks.alike(name)
        source.cases.append(SourceCase(case, "Tr", files, mask, also=_other_names(name, files, root), hint=hint))
    for path in masks.left():
        source.left_out[relative(path, root)] = "is a mask without an image"
    if folders.test_images is not None:
        tests = _files(root, folders.test_images, source, "test images")
        for case, files in _cases(tests, root, {_folded(name) for name in known}, source).items():
            source.cases.append(SourceCase(case, "Ts", files, also=_other_names(case, files, root)))
    channels = max((len(case.images) for case in source.cases), default=1)
    source.channel_names = ["CT"] if channels == 1 else [f"channel_{n}" for n in range(channels)]
    return source


def _files(root: Path, where: str, source: Source, what: str, without: Sequence[Path] = ()) -> list[Path]:
    path = Path(where) if Path(where).is_absolute() else root / where
    if path.is_dir():
        files, hidden = list_volumes(path)
        note_hidden([f"{where}/{name}" for name in hidden], source)
    elif any(sign in where for sign in "*?["):
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        found = sorted(anchor.glob(str(path.relative_to(anchor))))
        files = [file for file in found if file.is_file() and not file.name.startswith(".")]
    else:
        kind = "a file" if path.exists() else "nothing"
        raise SettingsError(f"{path}: expected a folder of {what} or a pattern such as */ct.nii.gz, found {kind}.")
    files = [file for file in files if file not in without]
    if not files:
        raise SettingsError(f"{path}: expected {what} (.nii.gz, .nii, .mha, .nrrd, ...), found none.")
    return files


def _cases(images: Sequence[Path], root: Path, known: set[str], source: Source) -> dict[str, tuple[Path, ...]]:
    """Case -> its files, one a channel.

    ``_0000`` ends the name of a case where a mask or the table of classes says so, else it is the channel.
    """
    named = _names(images, _IMAGE_WORDS)
    channels: dict[str, dict[int, list[Path]]] = {}
    for path, name in named.items():
        matched = re.fullmatch(r"(.+)_([0-9]{4})", name, re.DOTALL)
        if matched and _folded(name) not in known and (_folded(matched[1]) in known or int(matched[2]) < 10):
            channels.setdefault(matched[1], {}).setdefault(int(matched[2]), []).append(path)
        else:
            channels.setdefault(name, {}).setdefault(0, []).append(path)
    cases = {}
    for case, numbered in sorted(channels.items()):
        files = [path for paths in numbered.values() for path in paths]
        if sorted(numbered) != list(range(len(files))):
            names = listing([relative(path, root) for path in files], 3)
            for path in files:
                source.left_out[relative(path, root)] = (
                    f"{case}: expected one file a channel, numbered 0000, 0001, ..., found {names}"
                )
        else:
            cases[case] = tuple(numbered[number][0] for number in sorted(numbered))
    return cases


def mask_files(root: Path, where: str, source: Source) -> Masks:
    """Masks in a folder, or of a pattern such as ``*/seg.nii.gz``.

    Raises:
        SettingsError: there are none.
    """
    return Masks(_files(root, where, source, "masks"), root, source)


class Masks:
    """Masks by the names of their cases: as they are written, and without words such as ``_mask`` at an end."""

    def __init__(self, files: Sequence[Path], root: Path, source: Source) -> None:
        self._written: dict[str, Path] = {}
        self._short: dict[str, list[Path]] = {}
        for path, name in _names(files, _MASK_WORDS).items():
            first = self._written.setdefault(_folded(name), path)
            if first is not path:
                source.left_out[relative(path, root)] = f"expected one mask a case, found {relative(first, root)} too"
                continue
            self._short.setdefault(_folded(_without_word(name, _MASK_WORDS)), []).append(path)
        self._taken: set[Path] = set()
        self.names = {*self._written, *self._short}

    def take(self, *names: str) -> tuple[str, Path | None]:
        """The first of ``names`` that has a mask, and the mask; the first and None where there is none, or several."""
        for case in dict.fromkeys(names):
            found = self._written.get(_folded(case)) or self._single(_folded(case))
            if found is not None and found not in self._taken:
                self._taken.add(found)
                return case, found
        return names[0], None

    def left(self) -> list[Path]:
        """Masks that no image has taken."""
        return [path for path in self._written.values() if path not in self._taken]

    def alike(self, name: str) -> str:
        """A question about masks that may be meant."""
        near = [path.name for key, path in self._written.items() if _folded(name) in key or key in _folded(name)]
        near = [name for name in near if name]
        return f"; is it {listing(near, 3)}?" if near else ""

    def _single(self, key: str) -> Path | None:
        paths = self._short.get(key, [])
        return paths[0] if len(paths) == 1 else None


def _names(files: Sequence[Path], words: str) -> dict[Path, str]:
    """Name of each file's case: of the file, or of its folder where many files have the same name."""
    names = {path: stem_of(path) for path in files}
    bare = {path: re.sub(r"_[0-9]{4}$", "", name) for path, name in names.items()}
    folders = {path.parent for path in files}
    if len(folders) > 1 and len(set(bare.values())) <= max(1, len(folders) // 4):
        endings = {path: (re.search(r"_[0-9]{4}$", name) or [""])[0] for path, name in names.items()}
        return {path: path.parent.name + endings[path] for path in files}
    if any(re.fullmatch(words, name, re.IGNORECASE) for name in names.values()):
        return {path: path.parent.name for path in files}
    return names


def _without_word(stem: str, words: str) -> str:
    """``stem`` without one of the words at its end, or at its start before a number."""
    shorter = re.sub(rf"[ ._-]+(?:{words})$", "", stem, flags=re.IGNORECASE)
    if shorter == stem:
        shorter = re.sub(rf"^(?:{words})(?:[ ._-]+|(?=[0-9]))", "", stem, flags=re.IGNORECASE)
    return shorter or stem


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _other_names(name: str, files: Sequence[Path], root: Path) -> tuple[str, ...]:
    return tuple(dict.fromkeys([name, stem_of(files[0]), files[0].parent.name, relative(files[0], root)]))
