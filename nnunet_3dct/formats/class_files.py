"""Class predictions: ``<case>_classification.json``, ``subtype_results.csv`` and ``subtype_probabilities.csv``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from typing_extensions import NotRequired, TypedDict

from nnunet_3dct.errors import EvaluationError, NNUNet3DCTError, listing
from nnunet_3dct.formats.atomic import read_json, write_json, write_text
from nnunet_3dct.formats.class_label_files import case_name
from nnunet_3dct.formats.class_labels import check_class_names, load_class_labels
from nnunet_3dct.formats.clinical_columns import Value
from nnunet_3dct.formats.text_tables import read_table

CLASS_SUFFIX = "_classification.json"
PROBABILITIES_CSV = "subtype_probabilities.csv"
RESULTS_CSV = "subtype_results.csv"
SUM_TOLERANCE = 1e-3
UNUSUAL = "Unusual"  # last column of the probabilities, where a model tells


class Reason(TypedDict):
    """What one feature adds to the class of a case.

    ``share`` is its part of all contributions, whatever their sign; ``speaks`` is ``for`` or ``against`` the predicted
    class. ``value`` and ``typical`` (mean of the training cases) are there for measured features; in HU where the plan
    normalises CT.
    """

    feature: str
    words: str
    speaks: str
    share: float
    value: NotRequired[float]
    typical: NotRequired[float]
    unit: NotRequired[str]


class ClassFile(TypedDict):
    """Content of ``<case>_classification.json``.

    ``softmax(logits / temperature)`` gives ``probs``; without a calibration the temperature is 1. ``covariates`` are
    those that the class was computed with, null where they are missing; ``covariates_missing`` names these.
    ``unusual`` says in which way the case is unlike the training cases. ``reasons`` names the features that spoke for
    and against the class, the weightiest first. ``series`` is the key of the DICOM series that the image was;
    ``without_dicom`` says which DICOM results there are none of, since no voxel has a label.
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
    without_basis: NotRequired[str]
    covariates: NotRequired[dict[str, Value]]
    covariates_missing: NotRequired[list[str]]
    unusual: NotRequired[list[str]]
    reasons: NotRequired[list[Reason]]
    series: NotRequired[str]
    without_dicom: NotRequired[list[str]]
    produced_by: dict[str, Any]


@dataclass(frozen=True)
class ClassPrediction:
    """Class prediction of one case, read from a folder; None or empty where the file does not state it.

    Attributes:
        label: predicted class, 0-based.
        probabilities: of each class ``(C,)``.
        num_classes: C.
        class_names: of the classes.
        review: whether the predictor asks for a second look.
        evidence: name of the file with the map of the evidence.
        target_voxels: voxels of the labels that carry the class.
        produced_by: settings of the prediction.
        without_basis: why the predictor says that the class rests on nothing, such as a constant image.
        unusual: in which way the case is unlike the training cases.
        reasons: which features spoke for and against the class.
    """

    label: int
    probabilities: np.ndarray | None
    num_classes: int | None
    class_names: tuple[str, ...] | None = None
    review: bool | None = None
    evidence: str | None = None
    target_voxels: int | None = None
    produced_by: Mapping[str, Any] = field(default_factory=dict)
    without_basis: str | None = None
    unusual: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @property
    def head_weights(self) -> Mapping[str, str]:
        """Fold -> fingerprint of the head that predicted the case."""
        stated = self.produced_by.get("head_weights")
        return stated if isinstance(stated, dict) else {}


def class_file_path(folder: Path, case: str) -> Path:
    """``<folder>/<case>_classification.json``."""
    return folder / f"{case}{CLASS_SUFFIX}"


def classified_in(folder: Path) -> list[str]:
    """Cases that have a class file in ``folder``, sorted; hidden files are none."""
    names = (path.name for path in folder.glob(f"*{CLASS_SUFFIX}"))
    return sorted(name.removesuffix(CLASS_SUFFIX) for name in names if not name.startswith("."))


def has_class_predictions(folder: Path) -> bool:
    """Whether :func:`read_predictions` finds anything in ``folder``."""
    return bool(classified_in(folder)) or any((folder / name).is_file() for name in (PROBABILITIES_CSV, RESULTS_CSV))


def write_class_file(content: ClassFile, folder: Path, case: str) -> None:
    """Write ``<case>_classification.json``.

    Raises:
        OutputError: it cannot be written; what stood there before still does.
    """
    write_json(content, class_file_path(folder, case))


def read_class_file(path: Path) -> ClassPrediction:
    """Read and check a ``<case>_classification.json``, ours or the seed's.

    The probabilities are ``probs``, else the softmax of ``logits``; a stated ``pred`` is the class.

    Raises:
        EvaluationError: the file is missing or damaged, or its values contradict each other.
    """
    content = read_json(path, "Class prediction", EvaluationError, "Predict the case again.")
    if not isinstance(content, dict):
        raise EvaluationError(f"{path}: expected an object with pred or probs, found {type(content).__name__}.")
    probabilities = None
    if content.get("probs") is not None:
        probabilities = _vector(content["probs"], f"{path}: probs")
        _check_probabilities(probabilities, str(path))
    elif content.get("logits") is not None:
        probabilities = softmax(_vector(content["logits"], f"{path}: logits"))
    num_classes = None if content.get("num_classes") is None else _integer(content, "num_classes", path)
    if probabilities is not None:
        if num_classes not in (None, len(probabilities)):
            raise EvaluationError(
                f"{path}: num_classes is {num_classes} but there are {len(probabilities)} class values."
            )
        num_classes = len(probabilities)
    if content.get("pred") is not None:
        label = _integer(content, "pred", path)
    elif probabilities is not None:
        label = int(probabilities.argmax())
    else:
        raise EvaluationError(f"{path}: expected pred, probs or logits, found the keys {sorted(content)}.")
    names, review, evidence = (content.get(key) for key in ("class_names", "review", "evidence"))
    produced_by = content.get("produced_by")
    return ClassPrediction(
        label,
        probabilities,
        num_classes,
        tuple(str(name) for name in names) if isinstance(names, list) else None,
        review if isinstance(review, bool) else None,
        evidence if isinstance(evidence, str) else None,
        _integer(content, "target_voxels", path) if content.get("target_voxels") is not None else None,
        produced_by if isinstance(produced_by, dict) else {},
        str(content["without_basis"]) if content.get("without_basis") else None,
        _unusual(content, path),
        _reasons(content, path),
    )


def _unusual(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    texts = content.get("unusual", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise EvaluationError(f"{path}: expected a list of texts as unusual, found {texts!r}. Predict the case again.")
    return tuple(texts)


def _reasons(content: Mapping[str, Any], path: Path) -> tuple[Reason, ...]:
    found = content.get("reasons", [])
    for reason in found if isinstance(found, list) else [found]:
        if not _is_reason(reason):
            raise EvaluationError(
                f"{path}: expected reasons with feature, words, speaks (for or against), share (0 to 1) and, where "
                f"they have one, value and typical as numbers, found {str(reason)[:80]!r}. Predict the case again."
            )
    return tuple(found)


def _is_reason(reason: object) -> bool:
    if not isinstance(reason, dict):
        return False
    texts = [reason.get("feature"), reason.get("words"), reason.get("unit", "")]
    measured = [reason[key] for key in ("value", "typical") if reason.get(key) is not None]
    share = reason.get("share", -1)
    return (
        all(isinstance(text, str) for text in texts)
        and reason.get("speaks") in ("for", "against")
        and all(_is_number(value) for value in (share, *measured))
        and bool(0 <= share <= 1 + SUM_TOLERANCE)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
    cases = classified_in(folder)
    if cases:
        predictions = {case: read_class_file(class_file_path(folder, case)) for case in cases}
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


def _from_probabilities_csv(path: Path) -> dict[str, ClassPrediction]:
    try:
        rows = read_table(path, ("names",))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}.") from error
    header = rows[0].cells if rows else ()
    last = len(header) - 1 if _ends_with_remarks(header, [row.cells for row in rows[1:]]) else len(header)
    if header[:1] != ("Names",) or last < 3:
        found = ",".join(header) or "an empty file"
        raise EvaluationError(f"{path}: expected the header Names,<class>,<class>,..., found {found}.")
    predictions: dict[str, ClassPrediction] = {}
    for row in rows[1:]:
        where = f"{path}, line {row.line} ({row.cells[0]})"
        if len(row.cells) != len(header):
            raise EvaluationError(f"{where}: expected {len(header)} columns, found {len(row.cells)}.")
        case = case_name(row.cells[0])
        if case in predictions:
            raise EvaluationError(f"{where}: the case is listed more than once.")
        probabilities = _vector(row.cells[1:last], where)
        _check_probabilities(probabilities, where)
        label = int(probabilities.argmax())
        predictions[case] = ClassPrediction(
            label,
            probabilities,
            len(probabilities),
            header[1:last],
            unusual=tuple(text for text in row.cells[last:] if text),
        )
    return predictions


def _ends_with_remarks(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the last column says what is unusual; a class may have that name too, then it holds probabilities."""
    return header[-1:] == (UNUSUAL,) and not (rows and all(_reads_as_number(row[-1]) for row in rows))


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
        ClassLabelsError: the names are of another number than the classes.
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
    names = check_class_names(class_names or None, len(given), "Class prediction")
    if names:
        content["class_names"] = names
    return content


def write_class_tables(class_folder: Path, cases: Iterable[str], file_ending: str) -> None:
    """``subtype_results.csv`` (``Names,Subtype``) and ``subtype_probabilities.csv`` from the class files.

    The tables hold these cases and no others; where no case has a class file, tables of an earlier run are deleted.
    Cases without a class file are left out, so that parts of a split run can each write the tables; should another
    part finish a case meanwhile, they are written again.

    Raises:
        EvaluationError: a class file is damaged, or the cases have different numbers of classes.
        OutputError: a table cannot be written.
    """
    cases = sorted(cases)
    written: dict[str, list[str]] | None = None
    while True:
        predictions = _predictions(class_folder, cases)
        rows = {case: _row(case, prediction, class_folder) for case, prediction in predictions.items()}
        if rows == written:
            return
        written = rows
        if not rows:
            for name in (RESULTS_CSV, PROBABILITIES_CSV):
                (class_folder / name).unlink(missing_ok=True)
            continue
        names = _header(predictions, class_folder)
        named = [[f"{case}{file_ending}", *row] for case, row in rows.items()]
        _write_csv(class_folder / RESULTS_CSV, ["Names", "Subtype"], [row[:2] for row in named])
        header, table = ["Names", *names], [[row[0], *row[2:]] for row in named]
        if any(prediction.unusual or prediction.produced_by.get("whole_case") for prediction in predictions.values()):
            header.append(UNUSUAL)
            table = [[*row, "; ".join(predictions[case].unusual)] for case, row in zip(rows, table, strict=True)]
        _write_csv(class_folder / PROBABILITIES_CSV, header, table)


def _predictions(class_folder: Path, cases: Iterable[str]) -> dict[str, ClassPrediction]:
    found = {}
    for case in cases:
        path = class_file_path(class_folder, case)
        try:
            found[case] = read_class_file(path)
        except EvaluationError:
            if path.exists():  # another part may remove a case that failed
                raise
    return found


def _row(case: str, prediction: ClassPrediction, folder: Path) -> list[str]:
    """Class and probabilities of a case as the tables hold them."""
    if prediction.probabilities is None:
        raise EvaluationError(f"{class_file_path(folder, case)}: expected probabilities, found none. Predict it again.")
    return [str(prediction.label), *(f"{p:.6f}" for p in prediction.probabilities)]


def _header(predictions: Mapping[str, ClassPrediction], folder: Path) -> list[str]:
    """Names of the classes, for the first line of the table."""
    numbers: dict[int | None, str] = {}
    for case, prediction in predictions.items():
        numbers.setdefault(prediction.num_classes, case)
    if len(numbers) > 1:
        shown = listing([f"{number} ({case})" for number, case in numbers.items()])
        raise EvaluationError(
            f"{folder}: expected predictions of the same classes, found different numbers of classes: {shown}. "
            "Predict all cases with one model."
        )
    number = next(iter(numbers)) or 0
    names = next(iter(predictions.values())).class_names
    fitting = names is not None and len({*names}) == len(names) == number and all(name.strip() for name in names)
    return list(names) if names is not None and fitting else [f"class_{k}" for k in range(number)]


def _write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(text.getvalue(), path)


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
