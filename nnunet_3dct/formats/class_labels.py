"""Case-level class labels: ``classification.json`` or a CSV with the header ``Names,Subtype`` (and ``Patient``)."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_3dct.errors import ClassLabelsError, listing

UNKNOWN = -1
FILE_NAMES = ("classification.json", "classification.csv")
_IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".tif", ".tiff", ".png")


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
        found = Counter(self.by_case.get(case, UNKNOWN) for case in cases)
        return [found[k] for k in range(num_classes or self.num_classes)]


def find_class_labels(dataset_folders: Sequence[Path]) -> Path:
    """The first ``classification.json`` or ``.csv`` in ``dataset_folders``, in that order.

    Raises:
        ClassLabelsError: none of the folders holds one.
    """
    for folder in dataset_folders:
        for name in FILE_NAMES:
            if (Path(folder) / name).is_file():
                return Path(folder) / name
    raise ClassLabelsError(
        "No class labels: expected classification.json (or classification.csv) in one of "
        f"{listing([str(f) for f in dataset_folders])}; found in none of them. "
        'Put a file like {"case_0001": 0, "case_0002": 2} beside the raw or the preprocessed dataset.'
    )


def load_class_labels(path: Path) -> ClassLabels:
    """Read ``path`` (JSON or CSV).

    Values are integers or integer strings, 0-based, -1 for unknown.

    Raises:
        ClassLabelsError: the file is missing or malformed; all bad entries are listed in one message.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ClassLabelsError(f"Class labels {path} cannot be read: {error}. Check the path.") from error
    groups: dict[str, str] = {}
    if path.suffix.lower() == ".csv":
        pairs, groups = _csv_pairs(text, path)
    else:
        pairs = _json_pairs(text, path)
        groups = _groups_beside(path)

    by_case: dict[str, int] = {}
    problems = []
    for case, value in pairs:
        label = _as_label(value)
        if label is None:
            problems.append(f"{case}: expected an integer >= 0 (or -1 for unknown), found {value!r}")
        elif case in by_case:
            problems.append(f"{case}: listed more than once")
        else:
            by_case[case] = label
    if problems:
        raise ClassLabelsError(
            f"Class labels {path} hold {len(problems)} bad entries; correct them:\n  " + "\n  ".join(problems)
        )
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
        f"{case}: has no label; add it, or set it to -1 to train its segmentation only"
        for case in sorted(cases)
        if case not in labels.by_case
    ]
    found = labels.num_classes
    if found < 2 and (num_classes is None or num_classes < 2):
        problems.append(f"expected at least 2 classes, found the labels {sorted(set(labels.by_case.values()))}")
    if num_classes is None:
        present = set(labels.by_case.values())
        problems += [
            f"class {k} has no case although class {found - 1} exists; labels are 0-based "
            "(set NNUNETV2_MT_NUM_CLS if this is meant)"
            for k in range(found)
            if k not in present
        ]
    else:
        problems += [
            f"{case}: label {label} is out of range, NNUNETV2_MT_NUM_CLS={num_classes} allows 0 to {num_classes - 1}"
            for case, label in sorted(labels.by_case.items())
            if label >= num_classes
        ]
        if found < num_classes:
            problems.append(
                f"NNUNETV2_MT_NUM_CLS={num_classes} but the labels hold only the classes 0 to {found - 1}; "
                f"set it to {found} or add the missing cases"
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


def _as_label(value: object) -> int | None:
    if isinstance(value, str):
        digits = value.strip()
        value = int(digits) if digits.lstrip("-").isdecimal() and digits.count("-") <= 1 else None
    if isinstance(value, bool) or not isinstance(value, int) or value < UNKNOWN:
        return None
    return value


def _json_pairs(text: str, path: Path) -> list[tuple[str, object]]:
    try:
        content = json.loads(text, object_pairs_hook=list)
    except json.JSONDecodeError as error:
        raise ClassLabelsError(f"Class labels {path} are not valid JSON: {error}.") from error
    if not text.lstrip().startswith("{"):
        raise ClassLabelsError(
            f'Class labels {path}: expected an object like {{"case_0001": 0}}, found {type(content).__name__}.'
        )
    return [(_case_name(case), value) for case, value in content]


def _csv_pairs(text: str, path: Path) -> tuple[list[tuple[str, object]], dict[str, str]]:
    reader = csv.DictReader(text.splitlines())
    header = list(reader.fieldnames or [])
    if not {"Names", "Subtype"} <= set(header):
        raise ClassLabelsError(f"Class labels {path}: expected the header Names,Subtype, found {','.join(header)}.")
    rows = [(_case_name(row["Names"] or ""), row) for row in reader]
    groups = {case: row["Patient"].strip() for case, row in rows if (row.get("Patient") or "").strip()}
    return [(case, row["Subtype"] or "") for case, row in rows], groups


def _groups_beside(path: Path) -> dict[str, str]:
    """Patients from a ``classification.csv`` beside a JSON that holds the classes."""
    beside = path.with_suffix(".csv")
    if not beside.is_file():
        return {}
    text = beside.read_text(encoding="utf-8-sig", errors="replace")
    if "Patient" not in text.partition("\n")[0]:
        return {}
    return _csv_pairs(text, beside)[1]


def _case_name(name: str) -> str:
    for ending in _IMAGE_ENDINGS:
        if name.endswith(ending):
            return name[: -len(ending)]
    return name
