"""Class predictions of a folder: reading them, and checking them against labels and class names."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from typing_extensions import NotRequired, TypedDict

from nnunet_3dct.errors import EvaluationError, NNUNet3DCTError
from nnunet_3dct.formats.atomic import write_text
from nnunet_3dct.formats.class_labels import load_class_labels

CLASS_SUFFIX = "_classification.json"
PROBABILITIES_CSV = "subtype_probabilities.csv"
RESULTS_CSV = "subtype_results.csv"
SUM_TOLERANCE = 1e-3
_IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".tif", ".tiff", ".png", ".bmp")


@dataclass(frozen=True)
class ClassPrediction:
    """One case: class, class probabilities ``(C,)``, number of classes; the last two None if not stated."""

    label: int
    probabilities: np.ndarray | None
    num_classes: int | None


def read_predictions(folder: Path) -> tuple[dict[str, ClassPrediction], str]:
    """Read the class predictions of a folder.

    The first of these that exists is used: ``<case>_classification.json`` files;
    ``subtype_probabilities.csv`` (``Names,<class>,...``; the class is the most probable one);
    ``subtype_results.csv`` (``Names,Subtype``).

    Returns:
        Predictions by case, and what they were read from.

    Raises:
        EvaluationError: there are none, or one of them cannot be used.
    """
    if not folder.is_dir():
        raise EvaluationError(f"Predictions folder {folder} does not exist. Check the path.")
    files = sorted(folder.glob(f"*{CLASS_SUFFIX}"))
    if files:
        predictions = {path.name[: -len(CLASS_SUFFIX)]: _from_json(path) for path in files}
        source = f"*{CLASS_SUFFIX}"
    elif (folder / PROBABILITIES_CSV).is_file():
        predictions, source = _from_probabilities_csv(folder / PROBABILITIES_CSV), PROBABILITIES_CSV
    elif (folder / RESULTS_CSV).is_file():
        labels = load_class_labels(folder / RESULTS_CSV).by_case
        predictions = {case: ClassPrediction(label, None, None) for case, label in labels.items()}
        source = RESULTS_CSV
    else:
        raise EvaluationError(
            f"{folder} holds no class predictions: expected <case>{CLASS_SUFFIX} files, "
            f"{PROBABILITIES_CSV} or {RESULTS_CSV}. Was the prediction written to another folder (-co)?"
        )
    if not predictions:
        raise EvaluationError(f"{folder / source}: expected one row for each case, found none.")
    return predictions, source


def _from_json(path: Path) -> ClassPrediction:
    """Use ``probs``, else the softmax of ``logits``, else ``pred`` alone; a stated ``pred`` is the class."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}. Predict the case again.") from error
    if not isinstance(content, dict):
        raise EvaluationError(f"{path}: expected an object with pred or probs, found {type(content).__name__}.")
    probabilities = None
    if content.get("probs") is not None:
        probabilities = _vector(content["probs"], f"{path}: probs")
        _check_probabilities(probabilities, str(path))
    elif content.get("logits") is not None:
        logits = _vector(content["logits"], f"{path}: logits")
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
    num_classes = None if content.get("num_classes") is None else _integer(content, "num_classes", path)
    if probabilities is not None:
        if num_classes not in (None, len(probabilities)):
            raise EvaluationError(
                f"{path}: num_classes is {num_classes} but there are {len(probabilities)} class values."
            )
        num_classes = len(probabilities)
    if content.get("pred") is not None:
        return ClassPrediction(_integer(content, "pred", path), probabilities, num_classes)
    if probabilities is None:
        raise EvaluationError(f"{path}: expected pred, probs or logits, found the keys {sorted(content)}.")
    return ClassPrediction(int(probabilities.argmax()), probabilities, num_classes)


def _from_probabilities_csv(path: Path) -> dict[str, ClassPrediction]:
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}.") from error
    if not rows or rows[0][:1] != ["Names"] or len(rows[0]) < 3:
        found = ",".join(rows[0]) if rows else "an empty file"
        raise EvaluationError(f"{path}: expected the header Names,<class>,<class>,..., found {found}.")
    predictions: dict[str, ClassPrediction] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        where = f"{path}, line {number} ({row[0]})"
        if len(row) != len(rows[0]):
            raise EvaluationError(f"{where}: expected {len(rows[0])} columns, found {len(row)}.")
        ending = next((e for e in _IMAGE_ENDINGS if row[0].endswith(e)), "")
        case = row[0].removesuffix(ending)
        if case in predictions:
            raise EvaluationError(f"{where}: the case is listed more than once.")
        probabilities = _vector(row[1:], where)
        _check_probabilities(probabilities, where)
        predictions[case] = ClassPrediction(int(probabilities.argmax()), probabilities, len(probabilities))
    return predictions


def _vector(values: object, where: str) -> np.ndarray:
    try:
        vector = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        vector = np.empty(0)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise EvaluationError(f"{where}: expected one finite number for each class, found {values}.")
    return vector


def _integer(content: dict[str, Any], key: str, path: Path) -> int:
    value = content[key]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise EvaluationError(f"{path}: expected an integer >= 0 for {key}, found {content[key]!r}.")
    return value


def _check_probabilities(probabilities: np.ndarray, where: str) -> None:
    total = float(probabilities.sum())
    if abs(total - 1) > SUM_TOLERANCE or probabilities.min() < 0:
        raise EvaluationError(
            f"{where}: expected probabilities >= 0 with the sum 1 (tolerance {SUM_TOLERANCE}), "
            f"found {probabilities.tolist()} with the sum {total:.6g}. Predict the case again."
        )


class ClassFile(TypedDict):
    """Content of ``<case>_classification.json``.

    ``softmax(logits / temperature)`` gives ``probs``; without a calibration the temperature is 1.
    """

    logits: list[float]
    probs: list[float]
    pred: int
    num_classes: int
    temperature: NotRequired[float]
    review: NotRequired[bool]
    class_names: NotRequired[list[str]]
    evidence: NotRequired[str]
    target_voxels: NotRequired[int]
    produced_by: dict[str, Any]


def class_file(
    probs: Sequence[float],
    class_names: Sequence[str] | None,
    *,
    temperature: float | None = None,
    review_below: float | None = None,
    **produced_by: Any,
) -> ClassFile:
    """Content of ``<case>_classification.json``.

    Args:
        probs: class probabilities as the network gives them, sum 1.
        class_names: of the classes, if the model knows them.
        temperature: of the calibration; None for none.
        review_below: ``review`` says whether the highest probability is below; None leaves it out.
        produced_by: noted as it is.

    Raises:
        NNUNet3DCTError: a probability is not finite.
    """
    given = np.asarray(probs, np.float64)
    if not np.isfinite(given).all():
        raise NNUNet3DCTError(
            f"Class probabilities: expected finite numbers, found {list(probs)}. The network's "
            "weights or its forward pass are not finite; try another checkpoint or device."
        )
    logits = np.log(np.clip(given, 1e-12, None))
    calibrated = given if temperature is None else softmax(logits / temperature)
    content: ClassFile = {
        "logits": logits.tolist(),
        "probs": calibrated.tolist(),
        "pred": int(given.argmax()),
        "num_classes": len(given),
        "produced_by": produced_by,
    }
    if temperature is not None:
        content["temperature"] = temperature
    if review_below is not None:
        content["review"] = max(content["probs"]) < review_below
    if class_names:
        content["class_names"] = list(class_names)
    return content


def write_class_tables(class_folder: Path, cases: Iterable[str], file_ending: str) -> None:
    """``subtype_results.csv`` (``Names,Subtype``) and ``subtype_probabilities.csv`` from the JSON files.

    Cases without a JSON file are left out, so that parts of a split run can each write the table; should another part
    finish a case meanwhile, the table is written again.
    """
    cases = sorted(cases)
    written: dict[str, Mapping[str, Any]] = {}
    while written != (reports := _reports(class_folder, cases)):
        first = next(iter(reports.values()))
        names = first.get("class_names") or [f"class_{k}" for k in range(first["num_classes"])]
        rows = {f"{case}{file_ending}": report for case, report in reports.items()}
        _write_csv(
            class_folder / "subtype_results.csv",
            ["Names", "Subtype"],
            [[name, report["pred"]] for name, report in rows.items()],
        )
        _write_csv(
            class_folder / "subtype_probabilities.csv",
            ["Names", *names],
            [[name, *(f"{p:.6f}" for p in report["probs"])] for name, report in rows.items()],
        )
        written = reports


def _reports(class_folder: Path, cases: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    found = {}
    for case in cases:
        with contextlib.suppress(FileNotFoundError):  # another part may remove a case that failed
            found[case] = json.loads((class_folder / f"{case}{CLASS_SUFFIX}").read_text(encoding="utf-8"))
    return found


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(text.getvalue(), path)
