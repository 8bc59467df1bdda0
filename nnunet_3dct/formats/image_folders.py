"""Folders of images and of labels in nnU-Net's layout: which files make up which case, and which are left out.

Every room lists its files here, so that no file is used in one place and silently left out in another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.errors import ImageError, listing

# endings of volumes that a conversion may leave beside those of the dataset; longer ones first
_VOLUMES = (
    ".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".gipl.gz", ".gipl", ".img.gz", ".hdr.gz", ".img", ".hdr",
    ".mgz", ".mgh", ".mnc", ".dcm",
)  # fmt: skip
_PICTURES = (".tiff", ".tif", ".png", ".bmp", ".jpeg", ".jpg")
# two files that are one image: header and voxels
_PAIRS = {".img": ".hdr", ".img.gz": ".hdr", ".hdr.gz": ".hdr"}


@dataclass(frozen=True)
class CaseImages:
    """Image files of one case, one a channel, in the order of the channels."""

    case: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class ImageFolder:
    """What a folder of images holds.

    Attributes:
        cases: sorted by name.
        left_out: file or case -> why it is in no case.
    """

    cases: list[CaseImages]
    left_out: dict[str, str]


def list_images(folder: Path, file_ending: str, num_channels: int | None = None) -> ImageFolder:
    """List the cases of a folder of files named ``<case>_0000<file_ending>``, ``<case>_0001<file_ending>``, ...

    A case whose channels are not numbered 0, 1, 2, ... is left out, and so is each file of an image format that is
    in no case. Hidden files are neither cases nor mentioned; see :func:`hidden_images`.

    Args:
        folder: of the images.
        file_ending: as in dataset.json, such as ``.nii.gz``.
        num_channels: of the dataset; a case with more files is left out. One with fewer is not, since a file may hold
            several channels: :func:`~nnunet_3dct.formats.image_files.check_case_files` counts them.

    Raises:
        ImageError: the folder is missing, holds no file with the ending, or holds the same image in two formats.
    """
    folder = Path(folder)
    files, left_out = _image_files(folder, file_ending)
    if not files:
        raise _nothing_to_list(folder, f"images named <case>_0000{file_ending}")
    channels: dict[str, dict[int, Path]] = {}
    for stem, path in files.items():
        matched = re.fullmatch(r"(.+)_([0-9]{4})", stem, re.DOTALL)
        if matched:
            channels.setdefault(matched[1], {})[int(matched[2])] = path
        else:
            left_out[path.name] = f"expected a name like <case>_0000{file_ending}, with the channel in four digits"
    cases = []
    for case, numbered in sorted(channels.items()):
        reason = _channel_problem(sorted(numbered), num_channels)
        if reason:
            left_out[case] = reason
        else:
            cases.append(CaseImages(case, tuple(path for _, path in sorted(numbered.items()))))
    return ImageFolder(cases, dict(sorted(left_out.items())))


def list_labels(folder: Path, file_ending: str) -> dict[str, Path]:
    """Label volumes of a folder, references or predictions: case -> file ``<case><file_ending>``, sorted.

    Raises:
        ImageError: the folder is missing, holds no file with the ending, or holds the same volume in two formats.
    """
    folder = Path(folder)
    files, _ = _image_files(folder, file_ending)
    if not files:
        raise _nothing_to_list(folder, f"label volumes *{file_ending}")
    return dict(sorted(files.items()))


def labels_left_out(folder: Path, file_ending: str) -> dict[str, str]:
    """Volumes of a folder of labels that :func:`list_labels` does not list: file -> why."""
    return _image_files(Path(folder), file_ending)[1]


def hidden_images(folder: Path) -> list[str]:
    """Names of hidden files that end like images, such as ``._case_0000.nii.gz`` from a Mac.

    They are never cases here, but nnU-Net's planning takes those with the dataset's ending for some.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".") and _known_ending(path.name))


def strip_ending(name: str, file_ending: str) -> str:
    """``name`` without ``file_ending`` or, where it has another, without the ending of an image format."""
    if name.endswith(file_ending):
        return name[: -len(file_ending)]
    return name[: len(name) - len(_known_ending(name))]


def _nothing_to_list(folder: Path, expected: str) -> ImageError:
    present = listing(sorted(path.name for path in folder.iterdir()), 3) or "nothing"
    return ImageError(
        f"{folder}: expected {expected} (the ending in dataset.json), found {present}. Rename or convert them."
    )


def _image_files(folder: Path, file_ending: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Files with the ending, by name without it, and other images with the reason why they are left out."""
    if not folder.is_dir():
        raise ImageError(
            f"{folder}: expected a folder, found {'a file' if folder.exists() else 'none'}. Check the path."
        )
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    images = [path for path in visible if path.name.endswith(file_ending) or _known_ending(path.name)]
    _refuse_twins(folder, images, file_ending)
    files, left_out = {}, {}
    for path in images:
        if not path.name.endswith(file_ending):
            if not _is_picture(path.name) or _is_picture(file_ending):
                left_out[path.name] = f"expected the ending {file_ending} of dataset.json; convert or rename it"
        elif not path.is_file():
            kind = "a folder" if path.is_dir() else "a link that leads nowhere"
            left_out[path.name] = f"expected a file, found {kind}"
        else:
            files[strip_ending(path.name, file_ending)] = path
    return files, left_out


def _refuse_twins(folder: Path, images: list[Path], file_ending: str) -> None:
    """Refuse an image of the dataset's ending beside the same name with another.

    ITK, asked for ``a.nii.gz``, reads the voxels of ``a.nii`` where that exists, even where it is a folder.
    """
    by_stem: dict[str, list[str]] = {}
    for path in images:
        if _is_picture(path.name) and not _is_picture(file_ending):
            continue  # a preview beside a volume
        by_stem.setdefault(strip_ending(path.name, file_ending), []).append(path.name)
    twins = [
        " and ".join(names)
        for names in by_stem.values()
        if any(name.endswith(file_ending) for name in names) and len({_kind(name) for name in names}) > 1
    ]
    if twins:
        raise ImageError(
            f"{folder}: expected one file for each image, found the same name with two endings: "
            f"{listing(twins)}. ITK may open the other one than was asked for. Keep the right one of them and move "
            "the other to another folder."
        )


def _channel_problem(numbers: list[int], num_channels: int | None) -> str | None:
    shown = listing([f"{number:04d}" for number in numbers])
    if numbers != list(range(len(numbers))):
        hint = ""
        if len(numbers) == 1:
            hint = f"; where {shown} belongs to the name of the case, add _0000 to it"
        return f"expected channel numbers from 0000 without a gap, found {shown}{hint}"
    if num_channels is not None and len(numbers) > num_channels:
        return f"expected {num_channels} channel(s), found {len(numbers)}: {shown}"
    return None


def _known_ending(name: str) -> str:
    """Ending of an image format, as it is written in ``name``; empty when it has none."""
    lower = name.lower()
    for ending in (*_VOLUMES, *_PICTURES):
        if lower.endswith(ending):
            return name[-len(ending) :]
    return ""


def _kind(name: str) -> str:
    """Ending with its capitals, header and voxels of one image alike."""
    ending = _known_ending(name)
    return _PAIRS.get(ending, ending)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(_PICTURES)
