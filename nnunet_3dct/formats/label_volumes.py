"""Label volumes of references and predictions: paired by name, read, checked.

Both lie on the same grid and hold labels of ``dataset.json``, or an error says which file does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.errors import EvaluationError, ImageError, listing
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.dataset_json import entry_problems
from nnunet_3dct.formats.geometry import Geometry, check_spacing, geometry_differences, read_geometry
from nnunet_3dct.formats.image_files import check_image_file
from nnunet_3dct.formats.image_folders import labels_left_out, list_labels
from nnunet_3dct.formats.image_readers import DatasetJson, ImageProperties, ImageReader, choose_reader
from nnunet_3dct.formats.label_values import Rounding, check_finite_labels, whole_labels

PROBABILITIES, PLACEMENT = PROBABILITY_SUFFIXES = (".npz", ".pkl")  # nnU-Net's, of the voxels of a segmentation
PLANS_FILE = "plans.json"  # beside the dataset.json of a model folder


@dataclass(frozen=True)
class LabelScheme:
    """What ``dataset.json`` says about label volumes.

    Attributes:
        foreground: labels of the structures.
        ignore: the ignore label, None without one.
        file_ending: of images and labels.
        content: all of ``dataset.json``.
        plans: content of ``plans.json`` beside it, empty where there is none.
    """

    foreground: tuple[int, ...]
    ignore: int | None
    file_ending: str
    content: DatasetJson
    plans: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> tuple[int, ...]:
        """Every value that a label volume may hold: background, foreground and ignore label."""
        return (0, *self.foreground, *(() if self.ignore is None else (self.ignore,)))


@dataclass(frozen=True)
class Volume:
    """A label volume.

    Attributes:
        labels: ``(1, Z, Y, X)`` as nnU-Net's reader returns them, whole numbers.
        properties: of the reader; ``spacing`` is (Z, Y, X) in mm.
        geometry: grid of the file.
        rounding: what had to be rounded to whole labels, None if nothing.
    """

    labels: np.ndarray
    properties: ImageProperties
    geometry: Geometry
    rounding: Rounding | None


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
        return [str(path) for path, volume in both if volume.rounding]

    def compute_metrics(self, regions: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        """Return what nnU-Net's ``compute_metrics`` finds, each region a tuple of labels."""
        from nnunet_3dct.upstream import compute_metrics

        reference, prediction = str(self.reference_file), str(self.prediction_file)
        reader = _Loaded({reference: self.reference, prediction: self.prediction})
        metrics: dict[str, Any] = compute_metrics(reference, prediction, reader, list(regions), self.ignore)
        return metrics


class _Loaded:
    """Hands volumes that are already checked to ``compute_metrics``, which asks a reader for them."""

    def __init__(self, volumes: dict[str, Volume]) -> None:
        self.volumes = volumes

    def read_seg(self, path: str) -> tuple[np.ndarray, ImageProperties]:
        return self.volumes[path].labels, self.volumes[path].properties


def load_label_scheme(dataset_json: Path) -> LabelScheme:
    """Read labels and file ending; a region (a list of labels) counts with each of its labels.

    Raises:
        EvaluationError: the file cannot be read or is no ``dataset.json`` of nnU-Net v2.
    """
    from nnunet_3dct.upstream import LabelManager

    dataset_json = Path(dataset_json)
    content = read_json(
        dataset_json, "Description of the dataset", EvaluationError, "It cannot be used as dataset.json."
    )
    plans_file = dataset_json.with_name(PLANS_FILE)
    plans = read_json(plans_file, "Plans", EvaluationError) if plans_file.is_file() else {}
    unusable = [text for key, text in entry_problems(content).items() if key in ("", "labels", "file_ending")]
    if unusable:
        raise EvaluationError(f"{dataset_json} cannot be used as dataset.json: {' '.join(unusable)}")
    try:
        labels = LabelManager(content["labels"], None, force_use_labels=True)
        foreground = tuple(int(label) for label in labels.all_labels if label != 0)
        scheme = LabelScheme(foreground, labels.ignore_label, content["file_ending"], content, plans)
    except KeyError as error:
        raise EvaluationError(f"{dataset_json}: expected the key {error}, found {sorted(content)}.") from error
    except (ValueError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
        raise EvaluationError(f"{dataset_json} cannot be used as dataset.json: {error}") from error
    if not foreground:
        raise EvaluationError(f"{dataset_json}: expected at least one foreground label, found {content['labels']}.")
    return scheme


def match_files(references: Path, predictions: Path, ending: str, *, chill: bool) -> tuple[list[str], list[str]]:
    """List the file names found in both folders, and the references without a prediction.

    Args:
        references, predictions: folders of label volumes of the same names.
        ending: of the files, as in dataset.json.
        chill: accept references without a prediction, and volumes of other formats that are left out.

    Raises:
        EvaluationError: a folder has no such file; a prediction has no reference; a reference has no
            prediction, or a folder holds volumes of other formats, and ``chill`` is not set.
        ImageError: a folder holds the same volume in two formats.
    """
    names: dict[Path, set[str]] = {}
    for folder in (references, predictions):
        if not folder.is_dir():
            raise EvaluationError(f"Folder {folder} does not exist. Check the path.")
        try:
            names[folder] = {path.name for path in list_labels(folder, ending).values()}
        except ImageError as error:
            raise EvaluationError(str(error)) from error
        left_out = labels_left_out(folder, ending)
        if left_out and not chill:
            raise EvaluationError(
                f"{folder}: {listing([f'{name}: {reason}' for name, reason in left_out.items()], 5)}. Or accept that "
                "they are left out, with chill."
            )
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


def find_reader(scheme: LabelScheme, example: Path) -> ImageReader:
    """The reader that plans or dataset.json name, else the one that nnU-Net picks for an example file.

    Raises:
        ImageError: none of them reads the file, or the name is none of a reader.
    """
    return choose_reader(scheme.content, example, scheme.plans)()


def read_volume(path: Path, reader: ImageReader, scheme: LabelScheme) -> Volume:
    """Read a label volume whole.

    Raises:
        ImageError: the file is unreadable, truncated, or holds values that are no labels of the dataset.
    """
    check_image_file(path, reader=reader)
    check_finite_labels(path)
    geometry = read_geometry(path, reader=reader)
    check_spacing(geometry, str(path), path)
    try:
        values, properties = reader.read_seg(str(path))
    except Exception as error:  # every reader has its own exceptions
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ImageError(f"{path} cannot be read or is truncated: {reason[0]}. Write it again.") from error
    labels, rounding = whole_labels(values, scheme.known, str(path))
    return Volume(labels, properties, geometry, rounding)


def read_pair(reference: Path, prediction: Path, reader: ImageReader, scheme: LabelScheme) -> Pair:
    """Read reference and prediction of a case.

    Raises:
        EvaluationError: they do not lie on the same grid, by the comparison that every command uses
            (:func:`~nnunet_3dct.formats.geometry.geometry_differences`); the message names both values.
        ImageError: see :func:`read_volume`.
    """
    expected, found = (read_volume(path, reader, scheme) for path in (reference, prediction))
    differences = geometry_differences(found.geometry, expected.geometry)
    if differences:
        raise EvaluationError(
            f"Case {reference.name}: label and prediction differ in {'; '.join(differences)}, for {reference} "
            f"(expected) and {prediction} (found). Predict from the image that belongs to the label."
        )
    return Pair(reference, prediction, expected, found, scheme.ignore)
