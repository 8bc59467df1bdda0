"""The series of a folder tree, a ZIP archive or a single file, found by their tags."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from nnunet_3dct.dicom.archive import ExtractedArchive, first_bytes_inside, is_zip
from nnunet_3dct.dicom.file_tree import is_hidden, is_readable, walk
from nnunet_3dct.dicom.identifiers import Identifiers, key, patient_key
from nnunet_3dct.dicom.kinds import IMAGE, SEGMENTATION, STRUCTURES, kind_of
from nnunet_3dct.dicom.slices import Slice, by_position, slices_of, stacks_of
from nnunet_3dct.dicom.tags import (
    START,
    NotDicomError,
    TaggedFile,
    items,
    looks_like_dicom,
    quiet,
    read_tags,
    starts_like_dicom,
    text,
)
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.file_kinds import what_is

_FEW, _FEWER = 3, 4  # a series of another orientation with this few slices, a quarter of the others or less
_LOOKED_AT = 200  # files, to tell a folder of DICOM from others
MASK_KINDS = (SEGMENTATION, STRUCTURES)


@dataclass(frozen=True)
class Series:
    """One series of images, or one file of masks.

    Nothing here names the patient, but the paths may, since they are the user's; :attr:`place` can be shown.

    Attributes:
        uid: key of the SeriesInstanceUID (12 hexadecimal digits), with a number after it where one series holds stacks
            of several orientations.
        files: sorted by position along the normal of the slices.
        patient_key, study_key: keys of patient and study; see :func:`nnunet_3dct.dicom.identifiers.key`.
        modality: CT, MR, PT, SEG or RTSTRUCT.
        kind: ``image``, ``segmentation`` (DICOM-SEG) or ``structures`` (RTSTRUCT).
        place: folder within the source without identifiers, for messages; empty for the source itself.
        slices: of an image, sorted as the files.
        unreadable: files in the same folder that cannot be read, without identifiers; slices may be missing.
        refers_to: keys of the series on which masks were drawn.
        folder_name: name of the folder (or ZIP archive) where all files and no other series lie and which holds no
            identifier; else empty.
        archive: keeps the files of a ZIP archive alive.
    """

    uid: str
    files: tuple[Path, ...]
    patient_key: str
    study_key: str
    modality: str
    kind: str
    place: str = ""
    slices: tuple[Slice, ...] = field(default=(), repr=False)
    unreadable: tuple[str, ...] = ()
    refers_to: tuple[str, ...] = ()
    folder_name: str = ""
    archive: ExtractedArchive | None = field(default=None, repr=False, compare=False)

    @property
    def description(self) -> str:
        """What it is, from numbers alone: SeriesDescription is free text, in which names are found."""
        if self.kind != IMAGE:
            return f"{self.modality}, masks"
        width, height = self.slices[0].size
        return f"{self.modality}, {len(self.slices)} slices of {width} x {height}"

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"series {self.uid} ({self.description}{', in ' + self.place if self.place else ''})"


@dataclass(frozen=True)
class SeriesScan:
    """What a source holds.

    Attributes:
        series: of images, ordered by patient, study and series (their keys).
        masks: files of DICOM-SEG and RTSTRUCT, in the same order.
        left_out: file (path within the source, without identifiers) or series -> reason.
        identifiers: that were met, to hide them in texts.
        unreadable: of ``left_out``, files that are damaged or cannot be opened; the others are no slices of a volume.
    """

    series: list[Series]
    masks: list[Series]
    left_out: dict[str, str]
    identifiers: Identifiers = field(default_factory=Identifiers, repr=False)
    unreadable: frozenset[str] = frozenset()

    def masks_of(self, series: Series) -> list[Series]:
        """The files of masks that were drawn on ``series``."""
        return [masks for masks in self.masks if series.uid.split("-")[0] in masks.refers_to]


def holds_dicom(source: Path) -> bool:
    """Whether a folder tree, a ZIP archive or a file holds DICOM files; of a folder the first files are looked at."""
    source = Path(source)
    if source.is_dir():
        looked = 0
        for path in walk(source):
            if not is_hidden(path):
                if is_readable(path) and looks_like_dicom(path):
                    return True
                looked += 1
                if looked >= _LOOKED_AT:
                    return False
        return False
    if is_zip(source):
        return any(starts_like_dicom(start) for start in first_bytes_inside(source, START, _LOOKED_AT))
    return is_readable(source) and looks_like_dicom(source)


def find_series(source: Path, *, progress: Callable[[int], object] | None = None) -> SeriesScan:
    """Find the series of a source; tags are read, pixels are not.

    Args:
        source: a folder, whose whole tree is read, a ZIP archive, or one DICOM file.
        progress: called with the number of files read so far.

    Raises:
        ImageError: the source does not exist, or is an archive that cannot be unpacked.
    """
    source = Path(source)
    if not source.exists():
        raise ImageError(f"{source}: expected DICOM files, found nothing. Check the path.")
    archive = ExtractedArchive(source) if is_zip(source) else None
    root = source if archive is None else archive.folder
    reader = _Reader(root if root.is_dir() else root.parent, archive, source.stem if archive else "")
    for count, path in enumerate([root] if root.is_file() else walk(root), start=1):
        reader.read(path)
        if progress is not None:
            progress(count)
    return reader.scan()


class _Reader:
    """Collects the files of a source, series by series."""

    def __init__(self, root: Path, archive: ExtractedArchive | None, name: str) -> None:
        self.root, self.archive, self.name = root, archive, name or root.name
        self.identifiers = Identifiers()
        self.slices: dict[str, list[Slice]] = defaultdict(list)
        self.first: dict[str, TaggedFile] = {}
        self.masks: list[tuple[str, TaggedFile, tuple[str, ...]]] = []
        self.left_out: list[tuple[Path, str]] = [
            (root / name, reason) for name, reason in (archive.damaged if archive else {}).items()
        ]
        self.unreadable: dict[Path, list[Path]] = defaultdict(list)
        self.series_in: dict[Path, set[str]] = defaultdict(set)
        for path, _ in self.left_out:
            self.unreadable[path.parent].append(path)

    def read(self, path: Path) -> None:
        """Read one file: into its series, or left out with a reason."""
        if is_hidden(path):
            self.left_out.append((path, "a hidden file"))
            return
        try:
            with quiet():
                reason, damaged = self._sort_in(path)
        except NotDicomError as error:
            damaged = "damaged" in str(error)
            kind = (what_is(path) or "something unknown").split(":")[0]  # of a text it quotes the first line
            reason = str(error) if damaged else f"no DICOM file, but {kind}"
        except OSError as error:
            reason, damaged = f"cannot be opened ({error.strerror or type(error).__name__})", True
        except Exception:  # pydicom raises whatever the damaged bytes lead to, and only when a tag is looked at
            reason, damaged = "a damaged DICOM file", True
        if reason:
            self.left_out.append((path, reason))
        if damaged:
            self.unreadable[path.parent].append(path)

    def _sort_in(self, path: Path) -> tuple[str, bool]:
        if path.stat().st_size == 0:
            return "a file of 0 bytes", True
        file = read_tags(path)
        self.identifiers.note(file.tags)
        kind, reason = kind_of(file)
        if kind in MASK_KINDS:
            self.masks.append((kind, file, tuple(key(uid) for uid in _referenced_series(file.tags))))
        elif kind == IMAGE:
            uid = text(file.tags, "SeriesInstanceUID")
            if not uid:
                return "an image without SeriesInstanceUID", False
            slices = slices_of(file)  # may fail: before anything is added
            self.slices[uid].extend(slices)
            self.first.setdefault(uid, file)
            self.series_in[path.parent].add(uid)
        return reason, reason.startswith("cut off")

    def scan(self) -> SeriesScan:
        """The series, once all files are read."""
        with quiet():
            return self._scan()

    def _scan(self) -> SeriesScan:
        found: list[Series] = []
        for uid, slices in self.slices.items():
            stacks = stacks_of(slices)
            most = max(len(stack) for stack in stacks)
            kept = [stack for stack in stacks if len(stack) > _FEW or len(stack) * _FEWER > most]
            for stack in stacks:
                if stack not in kept:
                    self.left_out.extend(
                        (path, f"slices of another orientation than the {most} others of the series")
                        for path in sorted({item.file for item in stack})
                    )
            for number, stack in enumerate(kept, start=1):
                found.append(self._image(uid, stack, f"-{number}" if len(kept) > 1 else ""))
        masks = [self._masks(*of_file) for of_file in self.masks]
        reasons = {self.shown(path): reason for path, reason in sorted(self.left_out)}
        unreadable = frozenset(self.shown(path) for paths in self.unreadable.values() for path in paths)
        return SeriesScan(sorted(found, key=_order), sorted(masks, key=_order), reasons, self.identifiers, unreadable)

    def _image(self, uid: str, slices: list[Slice], ending: str) -> Series:
        slices = by_position(slices)
        tags = self.first[uid].tags
        folders = {item.file.parent for item in slices}
        unreadable = [path for folder in sorted(folders) for path in self.unreadable.get(folder, ())]
        folder = next(iter(folders))
        own = len(folders) == 1 and not ending and self.series_in[folder] == {uid}
        name = self.name if folder == self.root else folder.name
        return Series(
            uid=key(uid) + ending,
            files=tuple(dict.fromkeys(item.file for item in slices)),
            patient_key=slices[0].patient,
            study_key=key(text(tags, "StudyInstanceUID")),
            modality=text(tags, "Modality")[:16] or "CT",
            kind=IMAGE,
            place=self.shown(folder) if len(folders) == 1 else "",
            slices=tuple(slices),
            unreadable=tuple(self.shown(path) for path in unreadable),
            folder_name=name if own and self.identifiers.is_neutral(name) else "",
            archive=self.archive,
        )

    def _masks(self, kind: str, file: TaggedFile, refers_to: tuple[str, ...]) -> Series:
        tags = file.tags
        return Series(
            uid=key(text(tags, "SeriesInstanceUID") or text(tags, "SOPInstanceUID")),
            files=(file.path,),
            patient_key=patient_key(tags),
            study_key=key(text(tags, "StudyInstanceUID")),
            modality="SEG" if kind == SEGMENTATION else "RTSTRUCT",
            kind=kind,
            place=self.shown(file.path),
            refers_to=refers_to,
            archive=self.archive,
        )

    def shown(self, path: Path) -> str:
        """Path within the source, without identifiers."""
        inside = path.relative_to(self.root).as_posix()
        return "" if inside == "." else self.identifiers.hide(inside)


def _referenced_series(tags: Dataset) -> list[str]:
    direct = [text(item, "SeriesInstanceUID") for item in items(tags, "ReferencedSeriesSequence")]
    for frame in items(tags, "ReferencedFrameOfReferenceSequence"):
        for study in items(frame, "RTReferencedStudySequence"):
            direct += [text(item, "SeriesInstanceUID") for item in items(study, "RTReferencedSeriesSequence")]
    return [uid for uid in direct if uid]


def _order(series: Series) -> tuple[str, str, str]:
    return series.patient_key, series.study_key, series.uid


def counted(reasons: dict[str, str]) -> str:
    """Reasons with their numbers, the most frequent first: ``3 a localizer, 1 no pixels``."""
    return ", ".join(f"{number} {reason}" for reason, number in Counter(reasons.values()).most_common())
