"""What every kind of source is read into: cases with their files, and what is left out with the reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_3dct.data.convert.class_table import ClassTable, Matcher, TableRow
from nnunet_3dct.dicom.cases import DicomCase
from nnunet_3dct.errors import listing
from nnunet_3dct.formats.class_label_files import UNKNOWN
from nnunet_3dct.formats.image_folders import strip_ending

PARTS = ("Tr", "Val", "Ts")
ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".gipl", ".hdr", ".img")
_IGNORED_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
_LONGEST = 150


@dataclass(frozen=True)
class SourceCase:
    """One case of a source.

    Attributes:
        case: its name in the dataset.
        part: ``Tr``, ``Val`` or ``Ts``.
        images: one file a channel; a file of several volumes where ``split_volumes`` is set.
        mask: None without one.
        label: class, -1 where unknown.
        patient: empty where unknown.
        split_volumes: a fourth axis holds channels, as in the Medical Segmentation Decathlon.
        also: that the table may call it.
        dicom: the series, where the source is DICOM.
        hint: why there may be no mask, for the message.
        identifiers: of DICOM that the user asked to keep.
    """

    case: str
    part: str
    images: tuple[Path, ...]
    mask: Path | None = None
    label: int = UNKNOWN
    patient: str = ""
    split_volumes: bool = False
    also: tuple[str, ...] = ()
    dicom: DicomCase | None = None
    hint: str = ""
    identifiers: dict[str, str] = field(default_factory=dict)

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask of any kind."""
        return self.mask is not None or bool(self.dicom and self.dicom.masks)


@dataclass
class Source:
    """What a source holds.

    Attributes:
        kind: ``challenge``, ``folders``, ``decathlon`` or ``dicom``.
        root: its folder.
        cases: sorted by name.
        left_out: file, folder or row -> why it is in no case.
        notes: worth reading.
        channel_names: of the images.
        label_names: label -> name, where they are known.
        class_names: where they are known.
        keep: holds files of an archive until the conversion has ended.
    """

    kind: str
    root: Path
    cases: list[SourceCase] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    channel_names: list[str] = field(default_factory=lambda: ["CT"])
    label_names: dict[int, str] | None = None
    class_names: list[str] | None = None
    keep: object = None

    def name_of(self, case: SourceCase) -> str:
        """What messages call a case that has no name yet."""
        return case.dicom.series.name if case.dicom is not None else relative(case.images[0], self.root)


def case_name_problem(name: str) -> str | None:
    """What keeps ``name`` from being a case's; None when nothing does.

    Names become file names, so that nothing may lead out of the folder, hide a file or break a terminal.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        return f"expected a name without slashes that begins with no dot, found {name!r}"
    if re.search(r"[\x00-\x1f\x7f-\x9f:*?\"<>|]", name):
        return f'expected a name without control characters and :*?"<>|, found {name!r}'
    if name != name.strip() or name.endswith("."):
        return f"expected a name without blanks or dots at its ends, found {name!r}"
    if len(name.encode()) > _LONGEST:
        return f"expected a name of at most {_LONGEST} bytes, found {len(name.encode())}"
    return None


def relative(path: Path, root: Path) -> str:
    """``path`` relative to ``root`` where it lies in it."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)


def list_volumes(folder: Path, *, deep: bool = True) -> tuple[list[Path], list[str]]:
    """Image files below ``folder``, sorted, and hidden ones that are no images, such as ``._a.nii.gz`` of a Mac."""
    volumes: list[Path] = []
    hidden: list[Path] = []
    for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
        below = path.relative_to(folder).parts
        if any(part in _IGNORED_FOLDERS for part in below) or any(part.startswith(".") for part in below[:-1]):
            continue
        if not path.name.lower().endswith(ENDINGS) or path.is_dir():
            continue
        if path.name.lower().endswith(".img") and path.with_suffix(".hdr").exists():
            continue  # the header leads to it
        (hidden if path.name.startswith(".") else volumes).append(path)
    return volumes, [relative(path, folder) for path in hidden]


def stem_of(path: Path) -> str:
    """File name without the ending of an image."""
    return strip_ending(path.name, ".nii.gz")


def note_hidden(hidden: Sequence[str], source: Source) -> None:
    """Say that hidden files were not taken for images."""
    if hidden:
        source.notes.append(f"hidden files that end like images are left out: {listing(hidden, 3)}.")


def drop_bad_names(source: Source) -> None:
    """Leave out cases whose names cannot be used, and those of the same name but for capitals."""
    by_fold: dict[str, list[SourceCase]] = {}
    good = []
    for case in source.cases:
        problem = case_name_problem(case.case)
        if problem:
            source.left_out[source.name_of(case)] = problem
        else:
            by_fold.setdefault(case.case.casefold(), []).append(case)
    for same in by_fold.values():
        if len(same) == 1:
            good += same
            continue
        for case in same:
            others = listing([source.name_of(other) for other in same if other is not case], 3)
            source.left_out[source.name_of(case)] = (
                f"{case.case}: expected one case of this name, found it in {others} too"
            )
    source.cases = sorted(good, key=lambda case: (PARTS.index(case.part), case.case))


def drop_without_mask(source: Source) -> None:
    """Leave out training and validation cases without a mask."""
    for case in source.cases:
        if not case.has_mask and case.part != "Ts":
            source.left_out[source.name_of(case)] = f"has no mask{case.hint}"
    source.cases = [case for case in source.cases if case.has_mask or case.part == "Ts"]


def add_classes(source: Source, table: ClassTable, *, keep: bool = False) -> None:
    """Give the cases the classes, patients and parts of a table.

    Args:
        source: changed here.
        table: of its classes.
        keep: the source knows the classes itself; a row that says otherwise leaves its case out.
    """
    matcher = Matcher(table)
    cases = []
    without = []
    for case in source.cases:
        row = matcher.find(case.case, *case.also)
        if row is None:
            without.append(case.case)
            cases.append(case)
            continue
        if keep and case.label != row.label and UNKNOWN not in (case.label, row.label):
            source.left_out[case.case] = (
                f"class {case.label} by its folder, but {row.label} in {table.source.name}, line {row.line}"
            )
            continue
        cases.append(_with_row(case, row, keep))
    source.cases = cases
    source.left_out |= table.problems
    source.notes += table.notes
    if not keep or source.class_names is None:
        source.class_names = table.class_names
    if without and not keep:
        source.notes.append(
            f"{table.source.name}: no row for {listing(without)}; {'its' if len(without) == 1 else 'their'} class is "
            "unknown (-1)."
        )
    unused = [f"line {row.line}" if table.hide_names else f"{row.name} (line {row.line})" for row in matcher.unused()]
    if unused:
        source.notes.append(f"{table.source.name}: no case for {listing(unused)}.")


def _with_row(case: SourceCase, row: TableRow, keep: bool) -> SourceCase:
    label = case.label if keep and case.label != UNKNOWN else row.label
    return replace(case, part=row.part or case.part, label=label, patient=case.patient or row.patient)
