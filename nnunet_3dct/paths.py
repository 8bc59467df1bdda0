"""Where things lie: nnU-Net's three folders, datasets in them, splits, model folders, folds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.errors import CheckpointError, SettingsError, listing

RAW, PREPROCESSED, RESULTS = FOLDER_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
SPLITS_FILE = "splits_final.json"
DATASET_FILE = "dataset.json"
SEPARATOR = "__"  # in the names of model folders
MODEL_FOLDERS = "*__*__*"


@dataclass(frozen=True)
class ModelName:
    """Parts of the name of a model folder."""

    trainer: str
    plans: str
    configuration: str


def nnunet_folder(variable: str) -> Path:
    """One of nnU-Net's three folders.

    Args:
        variable: ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``.

    Raises:
        SettingsError: the variable is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise SettingsError(f'{variable}: expected a folder, found it not set. export {variable}="/path/to/{variable}"')
    return Path(value)


def is_set(variable: str) -> bool:
    """Whether one of nnU-Net's three variables has a value."""
    return bool(os.environ.get(variable))


def dataset_name(dataset: str | int) -> str:
    """Full name of a dataset given by name or number, as nnU-Net finds it in its three folders.

    Raises:
        SettingsError: no dataset, or more than one, has that number.
    """
    from nnunet_3dct.upstream import maybe_convert_to_dataset_name

    try:
        return str(maybe_convert_to_dataset_name(dataset))
    except (RuntimeError, ValueError) as error:
        raise SettingsError(f"Dataset {dataset}: {error}") from error


def find_raw_dataset(dataset: str) -> Path:
    """Folder of a raw dataset given by its path, its name or its number.

    Raises:
        SettingsError: there is no such dataset, or ``nnUNet_raw`` is not set.
    """
    if Path(dataset).is_dir():
        return Path(dataset).resolve()
    folder = nnunet_folder(RAW) / dataset_name(dataset)
    if not folder.is_dir():
        raise SettingsError(
            f"Dataset {dataset}: expected the folder {folder}, found no such folder. Check the name and {RAW}."
        )
    return folder


def labels_folders(name: str) -> list[Path]:
    """Where the class labels of a dataset are looked for, in this order: preprocessed, then raw.

    Args:
        name: full name of the dataset; variables that are not set are left out.
    """
    return [Path(os.environ[variable]) / name for variable in (PREPROCESSED, RAW) if is_set(variable)]


def splits_path(name: str) -> Path:
    """``splits_final.json`` of a dataset, given its full name.

    Raises:
        SettingsError: ``nnUNet_preprocessed`` is not set.
    """
    return nnunet_folder(PREPROCESSED) / name / SPLITS_FILE


def find_model_folder(dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """The folder ``<nnUNet_results>/<dataset>/<trainer>__<plans>__<configuration>``.

    When it does not exist and exactly one other trainer whose name begins with ``trainer`` was trained, that
    one is taken: the seed's quickstart trains ``CLSHeadSumFT`` and predicts with ``CLSHeadSum``. Callers compare
    the folder's name with what they asked for and tell the user.

    Raises:
        SettingsError: ``nnUNet_results`` is not set, or the dataset is not known.
        CheckpointError: no such model; names those that exist.
    """
    base = nnunet_folder(RESULTS) / dataset_name(dataset)
    wanted = base / f"{trainer}__{plans}__{configuration}"
    if wanted.is_dir():
        return wanted
    present = sorted(path.name for path in base.glob(MODEL_FOLDERS)) if base.is_dir() else []
    relatives = [n for n in present if n.startswith(trainer) and n.endswith(f"__{plans}__{configuration}")]
    if len(relatives) == 1:
        return base / relatives[0]
    raise CheckpointError(
        f"Model folder {wanted}: expected a trained model, found none. Present in {base}: "
        f"{listing(present) or 'nothing'}. Check dataset, trainer, plans and configuration."
    )


def parse_model_name(folder: Path) -> ModelName:
    """Trainer, plans and configuration of ``<trainer>__<plans>__<configuration>``.

    Raises:
        CheckpointError: the folder has another name.
    """
    parts = Path(folder).resolve().name.split(SEPARATOR)
    if len(parts) != 3 or not all(parts):
        raise CheckpointError(
            f"Model folder {folder}: expected the name <trainer>__<plans>__<configuration>, found "
            f"{Path(folder).resolve().name}. Give the folder that nnU-Net made for the model."
        )
    return ModelName(*parts)


def find_folds(folder: Path, wanted: Sequence[str] | None, checkpoint_name: str) -> list[int | str]:
    """Folds to use: ``wanted``, or all numbered folds that hold ``checkpoint_name`` (``all`` if it is the only one).

    Raises:
        CheckpointError: no fold has the checkpoint.
        SettingsError: a fold is neither a number nor ``all``.
    """
    if wanted is not None:
        bad = [f for f in wanted if f != "all" and not f.isdecimal()]
        if bad:
            raise SettingsError(f"Folds: expected numbers or all, found {listing(bad)}.")
        return [f if f == "all" else int(f) for f in wanted]
    names = [p.parent.name.removeprefix("fold_") for p in folder.glob(f"fold_*/{checkpoint_name}")]
    numbered: list[int | str] = [*sorted(int(n) for n in names if n.isdecimal())]
    folds = numbered or [n for n in names if n == "all"]
    if not folds:
        present = sorted(str(p.relative_to(folder)) for p in folder.glob("fold_*/*.pth"))
        raise CheckpointError(
            f"Model folder {folder}: expected a fold with {checkpoint_name}, found {listing(present) or 'none'}. "
            "Train first, or choose another checkpoint."
        )
    return folds
