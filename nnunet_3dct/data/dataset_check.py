"""Check a raw nnU-Net dataset with class labels and report everything that is wrong at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import ClassLabelsError, ImageError, listing
from nnunet_3dct.formats.class_labels import check_class_labels, read_labels_in
from nnunet_3dct.formats.image_files import (
    check_case_files,
    check_image_file,
    check_label_fits_image,
    check_label_values,
)
from nnunet_3dct.upstream import create_lists_from_splitted_dataset_folder, get_filenames_of_train_images_and_targets

REQUIRED_KEYS = ("labels", "channel_names", "numTraining", "file_ending")
Progress = Callable[..., Iterable[list[str]]]


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case; ``label`` is None where none is expected."""

    case: str
    images: tuple[Path, ...]
    label: Path | None


def check_raw_dataset(
    folder: Path,
    num_processes: int = 1,
    *,
    label_folders: Sequence[Path] = (),
    num_classes: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Check images, labels and classes of a dataset in nnU-Net's raw layout.

    ``imagesTr`` with ``labelsTr`` must be there and complete; ``imagesVal`` and ``imagesTs`` are checked
    where they exist, their labels where the folder of labels exists.

    Args:
        folder: the dataset, with dataset.json in it.
        num_processes: cases checked side by side.
        label_folders: more places to look for the class labels, before ``folder``.
        num_classes: number of classes asked for, None to take that of the labels.
        progress: wraps the results case by case, as ``tqdm`` does; called with ``total=``.

    Returns:
        One text for each problem, empty when the dataset is sound.
    """
    folder = Path(folder)
    description, problems = read_description(folder)
    if description is None:
        return problems
    allowed, label_problems = allowed_labels(description)
    problems += label_problems

    training, training_problems = _training_cases(folder, description)
    problems += training_problems
    held_out: list[CaseFiles] = []
    for part in ("Val", "Ts"):
        cases, part_problems = _split_cases(folder, part, description["file_ending"])
        held_out += cases
        problems += part_problems

    check = partial(check_case, channels=len(description["channel_names"]), allowed=allowed)
    found = _map(check, [*training, *held_out], num_processes)
    for case_problems in progress(found, total=len(training) + len(held_out)) if progress else found:
        problems += case_problems

    names = [case.case for case in training], [case.case for case in held_out]
    return problems + check_classes([*label_folders, folder], *names, num_classes=num_classes)


def read_description(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Content of dataset.json (None when it is unusable) and what is wrong with it."""
    path = folder / "dataset.json"
    if not folder.is_dir():
        return None, [f"{folder}: expected the folder of a raw dataset, found no such folder."]
    if not path.is_file():
        return None, [f"{path}: expected nnU-Net's description of the dataset, found no such file."]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return None, [f"{path}: expected JSON, found text that is not ({error})."]
    missing = [key for key in REQUIRED_KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        return None, [f"{path}: expected the keys {listing(REQUIRED_KEYS)}, found no {listing(missing)}. Add them."]
    return content, []


def allowed_labels(description: dict[str, Any]) -> tuple[list[int], list[str]]:
    """Voxel values that dataset.json allows, the ignore label among them, as nnU-Net reads them."""
    from nnunet_3dct.upstream import LabelManager

    try:
        manager = LabelManager(description["labels"], description.get("regions_class_order"))
        allowed = [int(label) for label in manager.all_labels]
        if manager.has_ignore_label:
            allowed.append(int(manager.ignore_label))
    except Exception as error:  # nnU-Net asserts, and lets wrong types run into its own code
        return [], [f"dataset.json: 'labels' cannot be used by nnU-Net: {error}"]
    if sorted(allowed) != list(range(len(allowed))):
        return allowed, [f"dataset.json: expected consecutive labels 0, 1, 2, ..., found {sorted(allowed)}."]
    return allowed, []


def check_case(files: CaseFiles, channels: int, allowed: Sequence[int]) -> list[str]:
    """Problems of one case: its images, its label, and whether the two fit."""
    problems: list[str] = []

    def passes(check: Callable[..., None], *args: object) -> bool:
        try:
            check(*args)
        except ImageError as error:
            problems.append(str(error))
            return False
        return True

    images_fine = passes(check_case_files, files.images, channels, files.case)
    if files.label is not None and passes(check_image_file, files.label):
        if images_fine:
            passes(check_label_fits_image, files.label, files.images[0], files.case)
        if allowed:
            passes(check_label_values, files.label, allowed, files.case)
    return problems


def check_classes(
    folders: Sequence[Path], training: Sequence[str], held_out: Sequence[str], *, num_classes: int | None
) -> list[str]:
    """Problems of the class labels.

    Held-out cases may be missing altogether, since their labels can be kept elsewhere; when some are listed,
    all must be.
    """
    try:
        labels = read_labels_in(folders)
    except ClassLabelsError as error:
        return [str(error)]
    cases = list(training)
    if any(case in labels.by_case for case in held_out):
        cases += held_out
    return [f"{labels.source.name}: {problem}" for problem in check_class_labels(labels, cases, num_classes)]


def _training_cases(folder: Path, description: dict[str, Any]) -> tuple[list[CaseFiles], list[str]]:
    if "dataset" not in description:
        absent = [name for name in ("imagesTr", "labelsTr") if not (folder / name).is_dir()]
        if absent:
            return [], [f"{folder}: expected the folders imagesTr and labelsTr, found no {listing(absent)}."]
    problems = [] if "dataset" in description else _name_problems(folder, "Tr", description["file_ending"])
    dataset = get_filenames_of_train_images_and_targets(str(folder), description)
    cases = [
        CaseFiles(case, tuple(Path(image) for image in files["images"]), Path(files["label"]))
        for case, files in sorted(dataset.items())
        if files["images"]  # a misnamed file leaves an identifier without images; it is reported already
    ]
    if len(cases) != description["numTraining"]:
        problems.append(
            f"dataset.json: numTraining is {description['numTraining']}, found {len(cases)} training cases. "
            "Add the missing cases or correct the number."
        )
    return cases, problems


def _split_cases(folder: Path, part: str, ending: str) -> tuple[list[CaseFiles], list[str]]:
    images, labels = folder / f"images{part}", folder / f"labels{part}"
    if not images.is_dir():
        return [], []
    cases = []
    for files in create_lists_from_splitted_dataset_folder(str(images), ending):
        if files:
            case = Path(files[0]).name[: -len("_0000" + ending)]
            label = labels / f"{case}{ending}" if labels.is_dir() else None
            cases.append(CaseFiles(case, tuple(Path(file) for file in files), label))
    return cases, _name_problems(folder, part, ending)


def _name_problems(folder: Path, part: str, ending: str) -> list[str]:
    """Files that nnU-Net would overlook or misread because of their names."""
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(ending))
    entries = sorted(path.name for path in (folder / f"images{part}").iterdir())
    # hidden files, and the spacings which nnU-Net keeps beside TIFF volumes
    images = [name for name in entries if not name.startswith(".") and not name.endswith(".json")]
    matches = {name: pattern.fullmatch(name) for name in images}
    problems = []
    misnamed = [name for name, match in matches.items() if match is None]
    if misnamed:
        problems.append(
            f"images{part}: expected names like <case>_0000{ending}, found also {listing(misnamed)}. "
            "Rename, convert or remove them."
        )
    channels: dict[str, list[int]] = {}
    for match in matches.values():
        if match:
            channels.setdefault(match[1], []).append(int(match[2]))
    problems += [
        f"{case}: expected channel numbers from 0000 without a gap, found "
        f"{listing([f'{n:04d}' for n in numbers])} in images{part}."
        for case, numbers in channels.items()
        if numbers != list(range(len(numbers)))
    ]
    labels = folder / f"labels{part}"
    lonely = [
        path.name
        for path in (sorted(labels.iterdir()) if labels.is_dir() else [])
        if path.name.endswith(ending) and path.name[: -len(ending)] not in channels
    ]
    if lonely:
        problems.append(f"labels{part}: found labels without an image in images{part}: {listing(lonely)}.")
    return problems


def _map(
    check: Callable[[CaseFiles], list[str]], cases: Sequence[CaseFiles], num_processes: int
) -> Iterator[list[str]]:
    if num_processes <= 1 or len(cases) <= 1:
        yield from map(check, cases)
        return
    with ProcessPoolExecutor(min(num_processes, len(cases)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(check, cases, chunksize=4)
