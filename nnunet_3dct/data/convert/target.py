"""The folder that a conversion writes into: what is in it already, and the tables that are written at the end."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from nnunet_3dct.data.convert.run import remove_temporary
from nnunet_3dct.data.raw_cases import FOLDERS
from nnunet_3dct.errors import OutputError, SettingsError, listing
from nnunet_3dct.formats.atomic import write_text
from nnunet_3dct.formats.class_label_files import CSV_NAME, JSON_NAME
from nnunet_3dct.formats.conversion import JOURNAL, NAME, UNDO_FOLDER, Conversion, Journal, read_conversion
from nnunet_3dct.paths import DATASET_FILE

_FILES = (DATASET_FILE, JSON_NAME, CSV_NAME, NAME, JOURNAL)


def check_places(source: Path, target: Path) -> None:
    """Make sure that a conversion writes neither over its source nor into it.

    Raises:
        SettingsError: it would.
    """
    if target == source:
        raise SettingsError(
            f"{target}: expected another folder than the source. To repair a dataset in place: "
            f"nnUNet3DCT_convert -i {source} --repair"
        )
    if source.is_dir() and target.is_relative_to(source):
        raise SettingsError(f"{target}: expected a folder outside the source {source}, found one in it.")
    if target.exists() and not target.is_dir():
        raise SettingsError(f"{target}: expected a folder, found a file. Choose another path.")


def earlier_conversion(target: Path, this: Conversion) -> Conversion | None:
    """What earlier runs of the same conversion have written; None for an empty folder.

    Raises:
        SettingsError: the folder holds something else.
    """
    if not target.is_dir() or not any(target.iterdir()):
        return None
    recorded = read_conversion(target) if (target / NAME).is_file() else None
    stopped = Journal(target).read()
    for other in (recorded, stopped):
        if other is not None and _of(other) != _of(this):
            raise SettingsError(
                f"{target}: holds a conversion of {_shown(other)}; expected one of {_shown(this)}, or an empty folder. "
                "Choose another folder, or allow to overwrite."
            )
    if recorded is None and stopped is None and not (target / JOURNAL).exists():
        dataset = (target / DATASET_FILE).is_file()
        raise SettingsError(
            f"{target}: expected an empty folder, or one of an earlier conversion, found "
            f"{listing(sorted(path.name for path in target.iterdir()), 5)}. Choose another folder, or "
            f"{'allow to overwrite' if dataset else 'empty it yourself'}."
        )
    found = recorded or stopped or this
    if stopped is not None:
        found.cases = {**found.cases, **stopped.cases}
    return found


def clear(target: Path) -> None:
    """Remove the dataset in a folder, so that another can be written there.

    Raises:
        SettingsError: the folder holds something, but no dataset.
        OutputError: it cannot be removed.
    """
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not any((target / name).is_file() for name in (DATASET_FILE, NAME, JOURNAL)):
        raise SettingsError(
            f"{target}: expected a dataset to overwrite, found files but no {DATASET_FILE}. Empty the folder yourself, "
            "or choose another one."
        )
    try:
        for name in (*FOLDERS, UNDO_FOLDER):
            if (target / name).is_dir():
                shutil.rmtree(target / name)
        for name in _FILES:
            (target / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be emptied: {error}.") from error


def prepare(target: Path, parts: set[str], masks: set[str]) -> None:
    """Make the folders of the dataset and remove what a run that was killed has left.

    Raises:
        OutputError: they cannot be made.
    """
    try:
        for kind, wanted in (("images", parts), ("labels", masks)):
            for part in wanted:
                (target / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}. Check the path.") from error
    remove_temporary(target)


def remove_unfinished(target: Path, journal: Journal, earlier: Conversion) -> None:
    """Remove files that a run that was killed had begun to write for cases that it did not finish."""
    recorded = earlier.files()
    for name in journal.to_write():
        path = target / name
        if name not in recorded and path.parent.resolve().is_relative_to(target) and not path.is_dir():
            path.unlink(missing_ok=True)


def write_tables(
    target: Path, tables: Mapping[str, str], before: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Write the tables, but none over one that was changed since an earlier run.

    Args:
        target: folder of the dataset.
        tables: file name -> content.
        before: file name -> hash of what the earlier run wrote.

    Returns:
        File name -> hash of what this run wrote, and a text for each table that was left alone.
    """
    written, left = {}, []
    for name, text in tables.items():
        path, digest = target / name, hashlib.sha256(text.encode()).hexdigest()
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        written[name] = before.get(name, digest)
        if found in (None, before.get(name), digest):
            write_text(text, path)
            written[name] = digest
        else:
            left.append(
                f"{name}: has been changed since it was written, and is left as it is. Delete it and convert again to "
                "have it written anew."
            )
    for name in before.keys() - tables.keys():
        path = target / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == before[name]:
            path.unlink()
    return written, left


def _of(conversion: Conversion) -> tuple[str, str, dict[str, str]]:
    return conversion.source, conversion.kind, conversion.options


def _shown(conversion: Conversion) -> str:
    options = [f"{name} {value}" for name, value in conversion.options.items()]
    return f"{conversion.source} ({listing([conversion.kind, *options])})"
