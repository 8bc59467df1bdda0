"""``conversion.json`` of a converted dataset: where each file came from, what was repaired, and what undoes it.

While a conversion runs, finished cases are lines of a journal beside it, so that a run that was killed goes on there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import NotRequired

from nnunet_3dct.errors import OutputError, SettingsError
from nnunet_3dct.formats.atomic import read_json, write_file, write_json, write_text

NAME = "conversion.json"
JOURNAL = ".conversion.partial.jsonl"
UNDO_FOLDER = "conversion_undo"  # voxels that no table of values brings back
FORMAT = 1
_CHUNK = 1 << 20


class RepairRecord(TypedDict):
    """A repair that was made; ``count`` voxels changed their value, or 1 for the header."""

    kind: str
    count: int
    found: str


class UndoRecord(TypedDict):
    """What brings the content of a NIfTI file before its repairs back, bit by bit.

    ``start`` holds the bytes before the voxels (zlib, base64), ``sha256`` is of the decompressed content. Voxels are as
    they are now unless ``values`` (label -> stored value, of type ``dtype``) or ``voxels`` (a file with the stored
    bytes, zlib) says otherwise.
    """

    start: str
    sha256: str
    dtype: str
    shape: list[int]
    values: NotRequired[dict[str, float]]
    voxels: NotRequired[str]


@dataclass
class FileRecord:
    """One file of the dataset.

    Attributes:
        case: whose it is.
        source: file, relative to the source's folder where it lies in it; for DICOM a hash that stands for the series.
        source_sha256: of that file; of all files of a DICOM series together.
        sha256: of the file in the dataset.
        how: ``copied``, ``hard link``, ``symlink`` or ``written``.
        repairs: that were made.
        undo: what undoes them; None where nothing was repaired.
        undone: whether they have been undone.
    """

    case: str
    source: str
    source_sha256: str
    sha256: str
    how: str
    repairs: list[RepairRecord] = field(default_factory=list)
    undo: UndoRecord | None = None
    undone: bool = False


@dataclass
class CaseRecord:
    """A case that was converted.

    Attributes:
        case: its name.
        files: by their names in the dataset.
        labels: in its mask.
        identifiers: of DICOM, where the user asked to keep them.
    """

    case: str
    files: dict[str, FileRecord]
    labels: list[int]
    identifiers: dict[str, str] = field(default_factory=dict)


@dataclass
class Conversion:
    """Content of ``conversion.json``.

    Attributes:
        source: what was converted: the folder, or for DICOM without identifiers its hash.
        kind: of source: ``challenge``, ``folders``, ``decathlon``, ``dicom`` or ``repair`` (in place).
        options: that change what is written.
        version: of this project.
        cases: that were converted.
        failed: case -> why it could not be.
        left_out: file or row -> why it is in no case.
        tables: name -> SHA-256 of what was written beside the images, such as ``dataset.json``.
    """

    source: str
    kind: str
    options: dict[str, str]
    version: str
    cases: dict[str, CaseRecord] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)

    def files(self) -> dict[str, FileRecord]:
        """Name in the dataset -> record of each file."""
        return {name: record for case in self.cases.values() for name, record in case.files.items()}

    def repaired(self) -> Iterator[tuple[str, FileRecord]]:
        """Name and record of each file whose repairs can be undone."""
        for name, record in self.files().items():
            if record.undo is not None and not record.undone:
                yield name, record


def read_conversion(folder: Path) -> Conversion:
    """Read ``conversion.json`` of a dataset.

    Raises:
        SettingsError: there is none, or it is of another form.
    """
    path = Path(folder) / NAME
    content = read_json(path, "Record of the conversion", SettingsError, "Only converted datasets have one.")
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        return Conversion(
            content["source"], content["kind"], content["options"], content["version"],
            {case: _case_record(case, entry) for case, entry in content["cases"].items()},
            content["failed"], content["left_out"], content["tables"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"{path}: expected a record of a conversion, found another form ({error!r}).") from error


def write_conversion(conversion: Conversion, folder: Path) -> None:
    """Write ``conversion.json``.

    Raises:
        OutputError: it cannot be written.
    """
    content = {"format": FORMAT, **asdict(conversion)}
    content["cases"] = {
        case: {
            "labels": record.labels,
            **({"identifiers": record.identifiers} if record.identifiers else {}),
            "files": {name: asdict(file) for name, file in record.files.items()},
        }
        for case, record in sorted(conversion.cases.items())
    }
    write_json(content, Path(folder) / NAME)


class Journal:
    """Finished cases of a conversion that runs; the first line says of which one."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / JOURNAL

    def start(self, conversion: Conversion, cases: Iterable[CaseRecord] = (), to_write: Iterable[str] = ()) -> None:
        """Begin the journal of a conversion.

        Args:
            conversion: that begins.
            cases: of an earlier run.
            to_write: files that are not there and that this run may write; one of them that is there after the run was
                killed is its own.
        """
        head = {
            "source": conversion.source,
            "kind": conversion.kind,
            "options": conversion.options,
            "to_write": sorted(to_write),
        }
        lines = [json.dumps(entry) + "\n" for entry in (head, *(asdict(case) for case in cases))]
        write_text("".join(lines), self.path)

    def add(self, case: CaseRecord) -> None:
        """Note a finished case."""
        self._append(asdict(case))

    def read(self) -> Conversion | None:
        """What a run that was stopped has left; None where there is no journal."""
        if not self.path.is_file():
            return None
        entries = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:  # the line that was being written
                break
        if not entries:
            return None
        head, *cases = entries
        found = Conversion(head["source"], head["kind"], head["options"], "")
        found.cases = {entry["case"]: _case_record(entry["case"], entry) for entry in cases}
        return found

    def to_write(self) -> list[str]:
        """Files that the run that was stopped may have written, those of finished cases among them."""
        if not self.path.is_file():
            return []
        try:
            with self.path.open(encoding="utf-8") as stream:
                return list(json.loads(stream.readline())["to_write"])
        except (ValueError, KeyError):
            return []

    def remove(self) -> None:
        """The conversion has ended."""
        self.path.unlink(missing_ok=True)

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error}.") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def keep_voxels(folder: Path, name: str, voxels: bytes) -> str:
    """Write the stored voxels of a file that no table brings back; returns the name of what was written."""
    kept = f"{UNDO_FOLDER}/{name.replace('/', '_')}.zlib"
    (folder / UNDO_FOLDER).mkdir(exist_ok=True)
    write_file(folder / kept, lambda stream: stream.write(voxels))
    return kept


def pack(data: bytes) -> str:
    """Bytes as text for JSON."""
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def unpack(text: str) -> bytes:
    """The bytes that :func:`pack` was given.

    Raises:
        SettingsError: the text is none of its results.
    """
    try:
        return zlib.decompress(base64.b64decode(text))
    except (ValueError, zlib.error) as error:
        raise SettingsError(f"Record of the conversion: expected packed bytes, found other text ({error}).") from error


def _case_record(case: str, entry: dict[str, Any]) -> CaseRecord:
    files = {name: FileRecord(**file) for name, file in entry["files"].items()}
    return CaseRecord(case, files, entry["labels"], entry.get("identifiers", {}))
