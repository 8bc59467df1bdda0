"""Label volumes of references and predictions: paired by name, read, checked.

Both lie on the same grid and hold labels of ``dataset.json``, or an error says which file does not.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from nnunet_3dct.errors import EvaluationError, ImageError, listing
from nnunet_3dct.upstream import (
    BaseReaderWriter,
    LabelManager,
    compute_metrics,
    determine_reader_writer_from_dataset_json,
)

# of values to whole numbers: a scaling factor in the header turns label 1 into 1.0000153
LABEL_TOLERANCE = 1e-2
# relative for spacing, mm for origin, absolute for direction cosines
SPACING_TOLERANCE, ORIGIN_TOLERANCE, DIRECTION_TOLERANCE = 1e-3, 1e-2, 1e-2


@dataclass(frozen=True)
class LabelScheme:
    """What ``dataset.json`` says about label volumes."""

    foreground: tuple[int, ...]
    ignore: int | None
    file_ending: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Volume:
    """A label volume ``(1, Z, Y, X)`` as nnU-Net's reader returns it; ``rounded``: values were not whole."""

    labels: np.ndarray
    properties: dict[str, Any]
    rounded: bool


@dataclass(frozen=True)
class Pair:
    """Reference and prediction of one case, on the same grid."""

    reference_file: Path
    prediction_file: Path
    reference: Volume
    prediction: Volume
    ignore: int | None

    @property
    def rounded(self) -> list[str]:
        """Files whose values had to be rounded to whole labels."""
        both = ((self.reference_file, self.reference), (self.prediction_file, self.prediction))
        return [str(path) for path, volume in both if volume.rounded]

    def compute_metrics(self, regions: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        """Return what nnU-Net's ``compute_metrics`` finds, each region a tuple of labels."""
        reference, prediction = str(self.reference_file), str(self.prediction_file)
        reader = _Loaded({reference: self.reference, prediction: self.prediction})
        return compute_metrics(reference, prediction, reader, list(regions), self.ignore)


class _Loaded:
    """Hands volumes that are already checked to ``compute_metrics``, which asks a reader for them."""

    def __init__(self, volumes: dict[str, Volume]) -> None:
        self.volumes = volumes

    def read_seg(self, path: str) -> tuple[np.ndarray, dict[str, Any]]:
        return self.volumes[path].labels, self.volumes[path].properties


def load_label_scheme(dataset_json: Path) -> LabelScheme:
    """Read labels and file ending; a region (a list of labels) counts with each of its labels.

    Raises:
        EvaluationError: the file cannot be read or is no ``dataset.json`` of nnU-Net v2.
    """
    try:
        content = json.loads(Path(dataset_json).read_text(encoding="utf-8"))
        labels = LabelManager(content["labels"], None, force_use_labels=True)
        foreground = tuple(int(label) for label in labels.all_labels if label != 0)
        scheme = LabelScheme(foreground, labels.ignore_label, content["file_ending"], content)
    except KeyError as error:
        raise EvaluationError(f"{dataset_json}: expected the key {error}, found {sorted(content)}.") from error
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
        raise EvaluationError(f"{dataset_json} cannot be used as dataset.json: {error}") from error
    if not foreground:
        raise EvaluationError(f"{dataset_json}: expected at least one foreground label, found {content['labels']}.")
    return scheme


def match_files(references: Path, predictions: Path, ending: str, *, chill: bool) -> tuple[list[str], list[str]]:
    """List the file names found in both folders, and the references without a prediction.

    Raises:
        EvaluationError: a folder has no such file; a prediction has no reference; a reference has no
            prediction and ``chill`` is not set.
    """
    names: dict[Path, set[str]] = {}
    for folder in (references, predictions):
        if not folder.is_dir():
            raise EvaluationError(f"Folder {folder} does not exist. Check the path.")
        names[folder] = {path.name for path in folder.iterdir() if path.name.endswith(ending)}
        if not names[folder]:
            raise EvaluationError(f"{folder}: expected label volumes *{ending} (dataset.json), found none.")
    missing = sorted(names[references] - names[predictions])
    surplus = sorted(names[predictions] - names[references])
    if surplus:
        raise EvaluationError(
            f"{len(surplus)} of {len(names[predictions])} predictions have no reference in {references}: "
            f"{listing(surplus)}. Add the references or move these predictions away."
        )
    if missing and not chill:
        raise EvaluationError(
            f"{len(missing)} of {len(names[references])} references have no prediction in {predictions}: "
            f"{listing(missing)}. Predict them, or leave them out with --chill."
        )
    return sorted(names[predictions]), missing


def find_reader(scheme: LabelScheme, example: Path) -> BaseReaderWriter:
    """Choose the reader as nnU-Net does, which tries them on an example file and prints each failure.

    Raises:
        ImageError: none of them reads the file.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return determine_reader_writer_from_dataset_json(scheme.content, str(example), verbose=False)()
    except RuntimeError as error:
        raise ImageError(f"{example}: none of nnU-Net's readers can read this file. Replace it.") from error


def read_volume(path: Path, reader: BaseReaderWriter, scheme: LabelScheme) -> Volume:
    """Read a label volume whole.

    Raises:
        ImageError: the file is unreadable, truncated, or holds values that are no labels of the dataset.
    """
    try:
        if path.name.endswith((".nii", ".nii.gz")):
            # SimpleITK fills what a truncated file lacks with zeros and says nothing; nibabel complains
            np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
        values, properties = reader.read_seg(str(path))
    except Exception as error:  # every reader has its own exceptions
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ImageError(f"{path} cannot be read or is truncated: {reason[0]}. Write it again.") from error
    inside = values != 0
    found = values[inside]  # few voxels of a CT are not background: all further checks look at these
    labels = np.rint(found)
    known = (0, *scheme.foreground, *(() if scheme.ignore is None else (scheme.ignore,)))
    strange = ~np.isin(labels, known) | (np.abs(found - labels) > LABEL_TOLERANCE)
    if strange.any():
        raise ImageError(
            f"{path}: expected the labels {list(known)} of dataset.json, "
            f"found also {listing(np.unique(found[strange]).tolist(), 5)}. Correct the file or dataset.json."
        )
    rounded = bool((found != labels).any())
    if rounded:
        values[inside] = labels
    return Volume(values, properties, rounded)


def read_pair(reference: Path, prediction: Path, reader: BaseReaderWriter, scheme: LabelScheme) -> Pair:
    """Read reference and prediction of a case.

    Raises:
        EvaluationError: they do not lie on the same grid; the message names both values.
        ImageError: see :func:`read_volume`.
    """
    expected, found = (read_volume(path, reader, scheme) for path in (reference, prediction))
    _check_same_grid(reference, prediction, expected, found)
    return Pair(reference, prediction, expected, found, scheme.ignore)


def _check_same_grid(reference: Path, prediction: Path, expected: Volume, found: Volume) -> None:
    geometry = [_geometry(volume) for volume in (expected, found)]
    for name, (value, tolerance, relative) in geometry[0].items():
        other = geometry[1][name][0]
        if value.shape == other.shape and np.allclose(other, value, rtol=relative, atol=tolerance):
            continue
        raise EvaluationError(
            f"Case {reference.name}: {name} of label and prediction differ: {_text(value)} in {reference}, "
            f"{_text(other)} in {prediction}. Predict from the image that belongs to the label."
        )


def _geometry(volume: Volume) -> dict[str, tuple[np.ndarray, float, float]]:
    """Return name -> value, absolute tolerance, relative tolerance.

    Shape and spacing are in the order ``(z, y, x)``, origin in ``(x, y, z)``.
    """
    found = {
        "shape": (np.array(volume.labels.shape[1:]), 0.0, 0.0),
        "spacing": (np.array(volume.properties["spacing"], dtype=float), 0.0, SPACING_TOLERANCE),
    }
    itk = volume.properties.get("sitk_stuff", {})
    nifti = volume.properties.get("nibabel_stuff", {})
    for name, value, tolerance in (
        ("origin", itk.get("origin"), ORIGIN_TOLERANCE),
        ("direction", itk.get("direction"), DIRECTION_TOLERANCE),
        ("affine", nifti.get("original_affine"), ORIGIN_TOLERANCE),
    ):
        if value is not None:
            found[name] = (np.array(value, dtype=float), tolerance, 0.0)
    return found


def _text(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values.ravel()) + ")"
