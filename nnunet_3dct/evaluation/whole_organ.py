"""Overlap of prediction and reference when all foreground labels are taken as one organ.

The numbers come from nnU-Net's own ``compute_metrics`` with a single region made of every foreground label.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_3dct.errors import EvaluationError, ImageError, listing

REGION = "whole_pancreas"
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
class _Volume:
    """A label volume ``(1, Z, Y, X)`` as nnU-Net's reader returns it; ``rounded``: values were not whole."""

    labels: np.ndarray
    properties: dict[str, Any]
    rounded: bool


class _Loaded:
    """Hands volumes that are already checked to ``compute_metrics``, which asks a reader for them."""

    def __init__(self, volumes: dict[str, _Volume]) -> None:
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


def evaluate_whole_organ(
    references: Path, predictions: Path, dataset_json: Path, *, num_processes: int = 1, chill: bool = False
) -> dict[str, Any]:
    """Compute Dice, IoU and voxel counts of the whole organ for every predicted case.

    A case whose reference and prediction are both empty has no Dice and no IoU: both are NaN (null in the
    JSON file), the means leave them out, and ``empty_in_both`` lists such cases. A case in which only one of
    the two is empty has Dice 0 and counts.

    Args:
        references: folder of reference label volumes.
        predictions: folder of predicted label volumes of the same names.
        dataset_json: the dataset's ``dataset.json``; says labels, ignore label, file ending and reader.
        num_processes: how many cases are compared at the same time (threads).
        chill: accept references without a prediction.

    Returns:
        The content of ``whole_pancreas_summary.json``.

    Raises:
        EvaluationError: files are missing, or a prediction does not lie on the grid of its reference.
        ImageError: a file is unreadable, truncated, or holds values that are no labels of the dataset.
    """
    if num_processes < 1:
        raise EvaluationError(f"-np: expected at least 1, found {num_processes}.")
    references, predictions = Path(references), Path(predictions)
    scheme = load_label_scheme(dataset_json)
    names, missing = match_files(references, predictions, scheme.file_ending, chill=chill)
    reader = _reader(scheme, references / names[0])

    def compare(name: str) -> tuple[dict[str, Any], list[str]]:
        return compare_case(references / name, predictions / name, reader, scheme)

    workers = min(num_processes, len(names), os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        compared = list(pool.map(compare, names))
    cases = [case for case, _ in compared]
    mean = mean_metrics([case["metrics"][REGION] for case in cases])
    empty = [n for n, case in zip(names, cases, strict=True) if np.isnan(case["metrics"][REGION]["Dice"])]
    return {
        "foreground_mean": mean,
        "mean": {REGION: dict(mean)},
        "labels": {"foreground": scheme.foreground, "ignore": scheme.ignore},
        "n_cases": len(names),
        "empty_in_both": {
            "count": len(empty),
            "cases": empty,
            "note": "reference and prediction are empty: Dice and IoU are null and left out of the means",
        },
        "missing_predictions": missing,
        "rounded_to_whole_labels": [path for _, rounded in compared for path in rounded],
        "metric_per_case": cases,
    }


def compare_case(
    reference: Path, prediction: Path, reader: BaseReaderWriter, scheme: LabelScheme
) -> tuple[dict[str, Any], list[str]]:
    """Return nnU-Net's metrics of one case, and those of its two files whose values had to be rounded."""
    volumes = {str(path): _read(path, reader, scheme) for path in (reference, prediction)}
    _check_same_grid(reference, prediction, *volumes.values())
    result = compute_metrics(str(reference), str(prediction), _Loaded(volumes), [scheme.foreground], scheme.ignore)
    result["metrics"] = {REGION: result["metrics"][scheme.foreground]}
    return result, [path for path, volume in volumes.items() if volume.rounded]


def mean_metrics(per_case: Sequence[dict[str, float]]) -> dict[str, float]:
    """Average each metric over the cases in which it is defined; NaN if there is none."""
    columns = {key: np.array([case[key] for case in per_case], dtype=float) for key in per_case[0]}
    return {
        key: float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
        for key, values in columns.items()
    }


def _reader(scheme: LabelScheme, example: Path) -> BaseReaderWriter:
    """Choose the reader as nnU-Net does, which tries them on an example file and prints each failure."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return determine_reader_writer_from_dataset_json(scheme.content, str(example), verbose=False)()
    except RuntimeError as error:
        raise ImageError(f"{example}: none of nnU-Net's readers can read this file. Replace it.") from error


def _read(path: Path, reader: BaseReaderWriter, scheme: LabelScheme) -> _Volume:
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
    return _Volume(values, properties, rounded)


def _check_same_grid(reference: Path, prediction: Path, expected: _Volume, found: _Volume) -> None:
    geometry = [_geometry(volume) for volume in (expected, found)]
    for name, (value, tolerance, relative) in geometry[0].items():
        other = geometry[1][name][0]
        if value.shape == other.shape and np.allclose(other, value, rtol=relative, atol=tolerance):
            continue
        raise EvaluationError(
            f"Case {reference.name}: {name} of label and prediction differ: {_text(value)} in {reference}, "
            f"{_text(other)} in {prediction}. Predict from the image that belongs to the label."
        )


def _geometry(volume: _Volume) -> dict[str, tuple[np.ndarray, float, float]]:
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
