"""The temperature of a model's class probabilities: ``calibration.json`` beside the model, and a copy that travels.

``nnUNetv2_export_model_to_zip`` packs only files that nnU-Net knows, ``calibration.json`` not among them. So what the
predictor needs of it is also kept in the model folder's ``dataset.json``, under the key ``calibration``. nnU-Net
ignores the key, and writes ``dataset.json`` anew when it trains a fold; :func:`keep_copy` puts the copy back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import NotRequired, TypedDict

from nnunet_3dct.errors import CheckpointError, listing
from nnunet_3dct.formats.atomic import read_json, write_json

CALIBRATION_NAME = "calibration.json"
KEY = "calibration"  # of the copy in dataset.json
_REMEDY = "Remove it with nnUNet3DCT_calibrate --remove, or run nnUNet3DCT_calibrate again."


class Calibration(TypedDict):
    """Content of ``calibration.json``; the copy in ``dataset.json`` holds the first two keys.

    Attributes:
        ensemble_temperature: the same for the average of all folds, where it is known; ``ensemble_before`` and
            ``ensemble_after`` are the quality of its probabilities.
        temperature: what the logits are divided by, above 0.
        head_weights: fold -> fingerprint of the head that the temperature was fitted to.
        n_cases, folds: what it was fitted to.
        before, after: quality of the probabilities, the latter on cases not fitted to (None: too few cases).
        helps: whether the temperature lowers the log loss.
        review: for several thresholds, the share of cases below and the accuracy of the others.
        warnings: what makes the temperature less certain.
    """

    temperature: float
    head_weights: dict[str, str]
    n_cases: NotRequired[int]
    folds: NotRequired[list[int]]
    before: NotRequired[dict[str, Any]]
    after: NotRequired[dict[str, Any] | None]
    helps: NotRequired[bool]
    review: NotRequired[list[dict[str, Any]]]
    ensemble_temperature: NotRequired[float]
    ensemble_before: NotRequired[dict[str, Any]]
    ensemble_after: NotRequired[dict[str, Any] | None]
    warnings: NotRequired[list[str]]


def calibration_path(model_folder: Path) -> Path:
    """``<model_folder>/calibration.json``."""
    return Path(model_folder) / CALIBRATION_NAME


def write_calibration(calibration: Calibration, model_folder: Path) -> Path:
    """Write ``calibration.json`` and the copy that is exported with the model; returns the path of the former.

    Raises:
        OutputError: a file cannot be written.
        CheckpointError: the model's ``dataset.json`` cannot be read.
    """
    path = calibration_path(model_folder)
    write_json(calibration, path)
    keep_copy(model_folder)
    return path


def keep_copy(model_folder: Path) -> None:
    """Make the copy in the model's ``dataset.json`` that of ``calibration.json``; without that file nothing is done.

    To be called after nnU-Net has written ``dataset.json`` anew. A damaged ``calibration.json`` is left to
    :func:`read_temperature`, which says so.

    Raises:
        OutputError: ``dataset.json`` cannot be written.
        CheckpointError: ``dataset.json`` cannot be read.
    """
    path = calibration_path(model_folder)
    if not path.is_file():
        return
    try:
        stored = _checked(read_json(path, "Calibration", CheckpointError, _REMEDY), path)
    except CheckpointError:
        return
    copy: dict[str, Any] = {"temperature": stored.temperature, "head_weights": stored.head_weights}
    if stored.of_ensemble is not None:
        copy["ensemble_temperature"] = stored.of_ensemble
    _set_copy(Path(model_folder), copy)


def remove_calibration(model_folder: Path) -> bool:
    """Delete ``calibration.json`` and its copy; returns whether there was any of them.

    Raises:
        OutputError, CheckpointError: as :func:`write_calibration`.
    """
    path = calibration_path(model_folder)
    there = path.is_file()
    path.unlink(missing_ok=True)
    return _set_copy(Path(model_folder), None) or there


def read_temperature(model_folder: Path, head_weights: Mapping[str, str]) -> tuple[float | None, str | None]:
    """Read the temperature that belongs to the networks in use, beside the model or from the copy.

    Args:
        model_folder: where ``nnUNet3DCT_calibrate`` wrote it.
        head_weights: fold -> fingerprint of the head in use.

    Returns:
        The temperature, that of the average where all folds are in use; None if there is none or it was fitted to
        other networks; and in the latter case why it is not applied.

    Raises:
        CheckpointError: what is there is no calibration.
    """
    note = None
    for content, path in _stored(Path(model_folder)):
        stored = _checked(content, path)
        foreign = [fold for fold, weights in head_weights.items() if stored.head_weights.get(fold) != weights]
        if not foreign:
            together = stored.of_ensemble is not None and len(head_weights) == len(stored.head_weights) > 1
            return stored.of_ensemble if together else stored.temperature, None
        note = note or (
            f"{path} is not applied: it was fitted to other weights than those of fold {listing(foreign)} with this "
            "checkpoint. Run nnUNet3DCT_calibrate again."
        )
    return None, note


def _stored(folder: Path) -> list[tuple[Any, Path]]:
    """What is stored of a calibration and where: the file first, then the copy."""
    path, description = calibration_path(folder), folder / "dataset.json"
    stored = []
    if path.is_file():
        stored.append((read_json(path, "Calibration", CheckpointError, _REMEDY), path))
    if description.is_file():
        content = _read_description(description)
        if KEY in content:
            stored.append((content[KEY], description))
    return stored


class _Stored(NamedTuple):
    temperature: float
    head_weights: dict[str, str]
    of_ensemble: float | None


def _checked(content: Any, path: Path) -> _Stored:
    """Temperatures and fingerprints of a stored calibration."""
    try:
        temperature, fitted = float(content["temperature"]), dict(content["head_weights"])
        together = content.get("ensemble_temperature")
        of_ensemble = None if together is None else float(together)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"Calibration {path} cannot be read: {error!r}. {_REMEDY}") from error
    for value in (temperature, 1.0 if of_ensemble is None else of_ensemble):
        if not (math.isfinite(value) and value > 0):
            raise CheckpointError(f"{path}: expected a temperature above 0, found {value}. {_REMEDY}")
    return _Stored(temperature, fitted, of_ensemble)


def _read_description(path: Path) -> dict[str, Any]:
    content = read_json(path, "Description of the dataset", CheckpointError, "Restore it from the raw dataset.")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected an object, found {type(content).__name__}. Restore it.")
    return content


def _set_copy(folder: Path, copy: dict[str, Any] | None) -> bool:
    """Write, or with None delete, the copy in ``dataset.json``; returns whether one was there."""
    path = folder / "dataset.json"
    if not path.is_file():
        return False
    content = _read_description(path)
    before = content.pop(KEY, None)
    if copy is not None:
        content[KEY] = copy
    if copy != before:
        write_json(content, path)
    return before is not None
