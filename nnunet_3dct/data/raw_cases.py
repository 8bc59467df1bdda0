"""Cases of a raw nnU-Net dataset: their files, and what is wrong with the names in its folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_3dct.errors import ImageError, listing
from nnunet_3dct.formats.dataset_json import num_channels
from nnunet_3dct.formats.image_folders import ImageFolder, hidden_images, labels_left_out, list_images, list_labels
from nnunet_3dct.formats.image_readers import DatasetJson

FOLDERS = tuple(f"{kind}{part}" for part in ("Tr", "Val", "Ts") for kind in ("images", "labels"))


@dataclass(frozen=True)
class RawCase:
    """Files of one case; ``label`` is None where none is expected."""

    case: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass
class RawCases:
    """Cases of a dataset, sorted, and one text for each problem of names and folders."""

    training: list[RawCase] = field(default_factory=list)
    held_out: list[RawCase] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_raw_cases(folder: Path, description: DatasetJson) -> RawCases:
    """List the cases of ``imagesTr`` (or those that dataset.json lists), ``imagesVal`` and ``imagesTs``.

    Args:
        folder: of the dataset.
        description: content of its dataset.json, of the right types.
    """
    found = RawCases()
    if "dataset" in description:
        found.training, found.problems = _listed_cases(folder, description)
    else:
        absent = [name for name in ("imagesTr", "labelsTr") if not (folder / name).is_dir()]
        if absent:
            found.problems.append(f"{folder}: expected the folders imagesTr and labelsTr, found no {listing(absent)}.")
        else:
            found.training, found.problems = _part(folder, "Tr", description)
    for part in ("Val", "Ts"):
        cases, problems = _part(folder, part, description)
        found.held_out += cases
        found.problems += problems
    found.problems += _number_problems(found.training, description["numTraining"])
    found.problems += _hidden_problems(folder, description["file_ending"])
    return found


def _part(folder: Path, part: str, description: DatasetJson) -> tuple[list[RawCase], list[str]]:
    images, labels, ending = folder / f"images{part}", folder / f"labels{part}", description["file_ending"]
    if not images.is_dir() or (part != "Tr" and all(path.name.startswith(".") for path in images.iterdir())):
        return [], []
    listed, problems = ImageFolder([], {}), []
    try:
        listed = list_images(images, ending, num_channels(description))
        problems += _left_out_problems(images.name, listed.left_out)
    except ImageError as error:
        problems.append(str(error))
    label_files: Mapping[str, Path] | None = None
    if labels.is_dir():
        try:
            label_files = list_labels(labels, ending)
            problems += _left_out_problems(labels.name, labels_left_out(labels, ending))
        except ImageError as error:
            problems.append(str(error))
    known = {case.case for case in listed.cases} | set(listed.left_out)
    lonely = [path.name for case, path in (label_files or {}).items() if case not in known]
    if lonely and listed.cases:
        problems.append(f"{labels.name}: found labels without an image in {images.name}: {listing(lonely)}.")
    cases = [
        RawCase(case.case, case.files, None if label_files is None else labels / f"{case.case}{ending}")
        for case in listed.cases
    ]
    return cases, problems


def _listed_cases(folder: Path, description: DatasetJson) -> tuple[list[RawCase], list[str]]:
    """Cases of the key ``dataset`` in dataset.json, which names files anywhere."""
    from nnunet_3dct.upstream import get_filenames_of_train_images_and_targets

    try:
        dataset = get_filenames_of_train_images_and_targets(str(folder), deepcopy(description))
    except (AttributeError, KeyError, TypeError) as error:
        form = '{"case_0": {"images": ["imagesTr/case_0_0000.nii.gz"], "label": "labelsTr/case_0.nii.gz"}}'
        return [], [f"{folder / 'dataset.json'}: dataset: expected {form}, found another form ({error!r})."]
    cases = [
        RawCase(case, tuple(Path(image) for image in files["images"]), Path(files["label"]))
        for case, files in sorted(dataset.items())
    ]
    return cases, []


def _left_out_problems(folder: str, left_out: Mapping[str, str]) -> list[str]:
    """One text for each reason, with the files or cases that it leaves out."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return [f"{folder}: {listing(names)}: {reason}." for reason, names in by_reason.items()]


def _number_problems(training: list[RawCase], number: object) -> Iterator[str]:
    if isinstance(number, int | float) and number != len(training):
        yield (
            f"dataset.json: numTraining is {number}, found {len(training)} training cases. "
            "Add the missing cases or correct the number."
        )


def _hidden_problems(folder: Path, ending: str) -> Iterator[str]:
    hidden = [f"{name}/{file}" for name in FOLDERS for file in hidden_images(folder / name) if file.endswith(ending)]
    if hidden:
        yield (
            f"{folder}: {len(hidden)} hidden files end with {ending}: {listing(hidden, 3)}. They are no cases, "
            f"but nnU-Net takes them for some; delete them, for instance by find {folder} -name '._*' -delete"
        )
