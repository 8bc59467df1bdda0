"""Case-level class labels: ``classification.json`` or a CSV with the columns ``Names``, ``Subtype``, ``Patient``.

They lie beside the preprocessed or the raw dataset; :func:`read_dataset_labels` is the one search for them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_3dct.errors import ClassLabelsError, listing
from nnunet_3dct.formats.class_label_files import (
    CSV_NAME,
    JSON_NAME,
    UNKNOWN,
    read_csv_beside,
    read_csv_labels,
    read_json_labels,
)
from nnunet_3dct.formats.text_tables import strip
from nnunet_3dct.paths import labels_folders

__all__ = [
    "UNKNOWN",
    "ClassLabels",
    "check_class_labels",
    "check_class_names",
    "find_class_labels",
    "load_class_labels",
    "read_dataset_labels",
    "read_labels_in",
    "require_class_labels",
]

FILE_NAMES = (JSON_NAME, CSV_NAME)
TABLE_ENDINGS = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class ClassLabels:
    """Class of every case.

    Attributes:
        by_case: case identifier (file name without channel number and ending) -> class, 0-based;
            -1 where the class is unknown.
        source: the file which the labels came from.
        groups: case -> patient, from the column ``Patient`` of the CSV, also of one beside the JSON; cases without
            an entry stand alone.
    """

    by_case: dict[str, int]
    source: Path
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Highest class id plus one."""
        return max(self.by_case.values(), default=UNKNOWN) + 1

    def counts(self, cases: Iterable[str], num_classes: int | None = None) -> list[int]:
        """Number of ``cases`` in each class; unknown and unlisted cases are left out."""
        number = Counter(self.by_case.get(case, UNKNOWN) for case in cases)
        return [number[k] for k in range(num_classes or self.num_classes)]


def read_dataset_labels(name: str) -> ClassLabels:
    """The class labels of a dataset: beside the preprocessed, else the raw data.

    Args:
        name: full name of the dataset, such as ``Dataset001_Pancreas``.

    Raises:
        ClassLabelsError: there are none, they are malformed, or both folders hold labels that differ.
    """
    return read_labels_in(labels_folders(name))


def read_labels_in(folders: Sequence[Path]) -> ClassLabels:
    """The class labels of the first folder that holds any, after a comparison with those of the others.

    Patients are taken from the first file that states them.

    Raises:
        ClassLabelsError: there are none, they are malformed, or those of two folders differ.
    """
    files = [path for folder in dict.fromkeys(map(Path, folders)) if (path := _labels_file(folder))]
    if not files:
        return load_class_labels(find_class_labels(folders))  # which says where it looked
    first, *others = [load_class_labels(path) for path in files]
    for other in others:
        _require_same(first.by_case, other.by_case, first.source, other.source, "class")
        if first.groups and other.groups:
            _require_same(first.groups, other.groups, first.source, other.source, "patient")
        first = replace(first, groups=first.groups or other.groups)
    return first


def find_class_labels(dataset_folders: Sequence[Path]) -> Path:
    """The first ``classification.json`` or ``.csv`` in ``dataset_folders``, in that order.

    Raises:
        ClassLabelsError: none of the folders holds one.
    """
    for folder in dataset_folders:
        path = _labels_file(Path(folder))
        if path:
            return path
    raise ClassLabelsError(
        f"No class labels: expected {JSON_NAME} (or {CSV_NAME}) in one of "
        f"{listing([str(f) for f in dataset_folders]) or 'nnU-Net folders, of which none is set'}; found none. "
        'Put a file like {"case_0001": 0, "case_0002": 2} beside the raw or the preprocessed dataset.'
    )


def _labels_file(folder: Path) -> Path | None:
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def load_class_labels(path: Path) -> ClassLabels:
    """Read ``path`` (JSON or CSV).

    Values are integers, also written as ``"1"``, ``1.0`` or ``"1.0"``; 0-based, -1 for unknown. A table may be
    separated by commas, semicolons or tabs, in UTF-8, UTF-16 or Latin-1.

    Raises:
        ClassLabelsError: the file is missing or malformed, or a CSV beside the JSON states other classes; all bad
            entries are listed in one message.
    """
    path = Path(path)
    if path.suffix.lower() in TABLE_ENDINGS:
        by_case, groups = read_csv_labels(path)
    else:
        by_case = read_json_labels(path)
        beside, groups = read_csv_beside(path)
        shared = {case: label for case, label in by_case.items() if case in beside}
        _require_same(shared, {case: beside[case] for case in shared}, path, path.with_suffix(".csv"), "class")
    if not by_case:
        raise ClassLabelsError(f"Class labels {path}: expected at least one case, found none.")
    return ClassLabels(by_case, path, groups)


def check_class_labels(labels: ClassLabels, cases: Sequence[str], num_classes: int | None = None) -> list[str]:
    """Compare the labels with the cases of a dataset.

    Args:
        labels: what was read.
        cases: identifiers that need a label.
        num_classes: number of classes asked for (``NNUNETV2_MT_NUM_CLS``), None to take the labels' own.

    Returns:
        One line for each problem, empty when all is well.
    """
    problems = [
        f"{case}: has no label; {_advice(case, labels.by_case)}" for case in sorted(cases) if case not in labels.by_case
    ]
    number = labels.num_classes
    if number < 2 and (num_classes is None or num_classes < 2):
        problems.append(f"expected at least 2 classes, found the labels {sorted(set(labels.by_case.values()))}")
    if num_classes is None:
        present = set(labels.by_case.values())
        problems += [
            f"class {k} has no case although class {number - 1} exists; labels are 0-based "
            "(set NNUNETV2_MT_NUM_CLS if this is meant)"
            for k in range(number)
            if k not in present
        ]
    else:
        problems += [
            f"{case}: label {label} is out of range, NNUNETV2_MT_NUM_CLS={num_classes} allows 0 to {num_classes - 1}"
            for case, label in sorted(labels.by_case.items())
            if label >= num_classes
        ]
        if number < num_classes:
            problems.append(
                f"NNUNETV2_MT_NUM_CLS={num_classes} but the labels hold only the classes 0 to {number - 1}; "
                f"set it to {number} or add the missing cases"
            )
    return problems


def require_class_labels(labels: ClassLabels, cases: Sequence[str], num_classes: int | None = None) -> None:
    """Raise one ClassLabelsError that lists everything :func:`check_class_labels` found."""
    problems = check_class_labels(labels, cases, num_classes)
    if problems:
        raise ClassLabelsError(
            f"Class labels {labels.source} do not fit the dataset ({len(cases)} cases, "
            f"{len(problems)} problems):\n  " + "\n  ".join(problems)
        )


def check_class_names(names: object, num_classes: int, source: str) -> list[str] | None:
    """Names of the classes 0, 1, ... as ``dataset.json`` (``class_names``) or a checkpoint states them.

    Args:
        names: what stands there; None for no names.
        num_classes: number of classes that need a name.
        source: where the names stand, for the message.

    Returns:
        The names, None if there are none.

    Raises:
        ClassLabelsError: they are not a list of distinct texts, or of another number than the classes.
    """
    if names is None:
        return None
    form = f'{source}: class_names: expected a list of {num_classes} different names like ["solid", "cystic"]'
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and strip(name) for name in names):
        raise ClassLabelsError(f"{form}, found {json.dumps(names, default=str)}. Correct or remove the key.")
    if len(names) != len({strip(name) for name in names}):
        raise ClassLabelsError(f"{form}, found {listing(names)}. Give each class its own name.")
    if len(names) != num_classes:
        raise ClassLabelsError(
            f"{source}: class_names: expected {num_classes} names, since the classes are 0 to {num_classes - 1}, "
            f"found {len(names)}: {listing(names)}. Name every class, or remove the key."
        )
    return list(names)


def _require_same(
    first: Mapping[str, object], other: Mapping[str, object], first_file: Path, other_file: Path, what: str
) -> None:
    """Refuse two tables that contradict each other, since commands would not agree on which one is meant."""
    differences = [
        f"{case}: {what} {first.get(case, 'not listed')} in the first, {other.get(case, 'not listed')} in the second"
        for case in sorted({*first, *other})
        if first.get(case) != other.get(case)
    ]
    if differences:
        shown = "\n  ".join([*differences[:10], *([f"and {len(differences) - 10} more"] if differences[10:] else [])])
        raise ClassLabelsError(
            f"Two files of class labels differ: {first_file} and {other_file}. Expected the same content, found "
            f"{len(differences)} cases that differ. Delete the file that is out of date, or copy the right one over "
            f"it:\n  {shown}"
        )


def _advice(case: str, listed: Mapping[str, int]) -> str:
    numbered = re.compile(re.escape(case) + r"_\d{4}")
    alike = [name for name in listed if name.casefold() == case.casefold() or numbered.fullmatch(name)]
    if alike:
        return f"the labels list {listing(alike, 3)} instead; write the name as in labelsTr, without channel number"
    return "add it, or set it to -1 to train its segmentation only"
