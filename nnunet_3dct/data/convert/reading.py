"""A source read by its kind, with the classes of its table; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_3dct.data.convert.challenge import read_challenge
from nnunet_3dct.data.convert.class_table import Columns, read_class_table
from nnunet_3dct.data.convert.decathlon import read_decathlon
from nnunet_3dct.data.convert.detect import CHALLENGE, DECATHLON, DICOM, FOLDERS, find_kind
from nnunet_3dct.data.convert.dicom_tree import read_dicom
from nnunet_3dct.data.convert.folders import Folders, find_table, read_folders
from nnunet_3dct.data.convert.source import Source, add_classes, drop_bad_names, drop_without_mask
from nnunet_3dct.data.convert.transfer import COPY
from nnunet_3dct.errors import SettingsError


@dataclass(frozen=True)
class ConversionOptions:
    """How to read a source and what to make of it; see :func:`convert_dataset`."""

    kind: str | None = None
    folders: Folders = field(default_factory=Folders)
    labels: Path | None = None
    sheet: str | None = None
    columns: Columns = field(default_factory=Columns)
    class_names: Sequence[str] | None = None
    label_names: Sequence[str] | None = None
    label_map: Mapping[int, int] | None = None
    channel_names: Sequence[str] | None = None
    transfer: str = COPY
    keep_ids: bool = False


def read_source(path: Path, options: ConversionOptions) -> Source:
    """Cases of a source with their classes; nothing is written."""
    kind, root = find_kind(path, options.kind, options.folders)
    table_path = options.labels
    if table_path is None and root.is_dir() and kind in (FOLDERS, DECATHLON):
        table_path = find_table(root)
    elif table_path is not None and not table_path.is_absolute() and not table_path.exists():
        table_path = root / table_path
    if table_path is None and options.columns != Columns():
        raise SettingsError(f"{root}: expected a table of classes with the columns that are named, found none.")
    table = None
    if table_path is not None:
        table = read_class_table(
            table_path, options.columns, sheet=options.sheet, class_names=options.class_names,
            hide_names=kind == DICOM and not options.keep_ids,
        )  # fmt: skip
    if kind == CHALLENGE:
        source = read_challenge(root)
    elif kind == DECATHLON:
        source = read_decathlon(root)
    elif kind == DICOM:
        source = read_dicom(root, options.folders, keep_ids=options.keep_ids)
    else:
        source = read_folders(root, options.folders, known=[row.name for row in table.rows] if table else [])
    if table is not None:
        add_classes(source, table, keep=kind == CHALLENGE)
    elif kind != CHALLENGE:
        source.notes.append(
            "no table of classes: classification.json is not written, and a class head cannot be trained without."
        )
    if kind == CHALLENGE and options.class_names is not None:
        source.class_names = list(options.class_names)
    drop_without_mask(source)
    drop_bad_names(source)
    if options.label_names is not None:
        source.label_names = dict(enumerate(options.label_names, start=1))
    if options.channel_names is not None:
        source.channel_names = list(options.channel_names)
    return source
