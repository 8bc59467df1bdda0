"""Where nnU-Net keeps a trained model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_3dct.errors import CheckpointError, SettingsError, listing


def find_model_folder(dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """The folder ``<nnUNet_results>/<dataset>/<trainer>__<plans>__<configuration>``.

    When it does not exist and exactly one other trainer whose name begins with ``trainer`` was trained, that
    one is taken and the choice is printed: the seed's quickstart trains ``CLSHeadSumFT`` and predicts
    with ``CLSHeadSum``.

    Raises:
        SettingsError: ``nnUNet_results`` is not set, or the dataset is not known.
        CheckpointError: no such model; names those that exist.
    """
    results = os.environ.get("nnUNet_results")
    if not results:
        raise SettingsError("nnUNet_results: expected the folder with the trained models, found it not set.")
    try:
        name = maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(f"-d {dataset}: {error}") from error
    base = Path(results) / name
    wanted = base / f"{trainer}__{plans}__{configuration}"
    if wanted.is_dir():
        return wanted
    present = sorted(path.name for path in base.glob("*__*__*")) if base.is_dir() else []
    relatives = [n for n in present if n.startswith(trainer) and n.endswith(f"__{plans}__{configuration}")]
    if len(relatives) == 1:
        print(f"No model of {trainer}; using {relatives[0]}.")
        return base / relatives[0]
    raise CheckpointError(
        f"Model folder {wanted}: expected a trained model, found none. Present in {base}: "
        f"{listing(present) or 'nothing'}. Check -d, -tr, -p and -c."
    )


def find_folds(folder: Path, wanted: Sequence[str] | None, checkpoint_name: str) -> list[int | str]:
    """Folds to use: ``wanted``, or all numbered folds that hold ``checkpoint_name`` (``all`` if it is the only one).

    Raises:
        CheckpointError: no fold has the checkpoint.
        SettingsError: a fold is neither a number nor ``all``.
    """
    if wanted is not None:
        bad = [f for f in wanted if f != "all" and not f.isdecimal()]
        if bad:
            raise SettingsError(f"-f: expected numbers or all, found {listing(bad)}")
        return [f if f == "all" else int(f) for f in wanted]
    names = [p.parent.name.removeprefix("fold_") for p in folder.glob(f"fold_*/{checkpoint_name}")]
    numbered: list[int | str] = [*sorted(int(n) for n in names if n.isdecimal())]
    folds = numbered or [n for n in names if n == "all"]
    if not folds:
        present = sorted(str(p.relative_to(folder)) for p in folder.glob("fold_*/*.pth"))
        raise CheckpointError(
            f"Model folder {folder}: expected a fold with {checkpoint_name}, found {listing(present) or 'none'}. "
            "Train first, or choose another checkpoint with -chk."
        )
    return folds
