"""Class file of a case: ``<case>_classification.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from typing_extensions import NotRequired, TypedDict

from nnunet_3dct.errors import EvaluationError, NNUNet3DCTError
from nnunet_3dct.formats.atomic import read_json, write_json
from nnunet_3dct.formats.class_labels import check_class_names
from nnunet_3dct.formats.class_prediction import ClassPrediction, check_probabilities, class_values
from nnunet_3dct.formats.class_reasons import Reason, check_reasons
from nnunet_3dct.formats.clinical_columns import Value

CLASS_SUFFIX = "_classification.json"
CLASS_FILES = f"*{CLASS_SUFFIX}"  # of all cases; metrics state it as their source


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


def class_file_path(folder: Path, case: str) -> Path:
    """``<folder>/<case>_classification.json``."""
    return folder / f"{case}{CLASS_SUFFIX}"


def classified_in(folder: Path) -> list[str]:
    """Cases that have a class file in ``folder``, sorted; hidden files are none."""
    names = (path.name for path in folder.glob(CLASS_FILES))
    return sorted(name.removesuffix(CLASS_SUFFIX) for name in names if not name.startswith("."))


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
        probabilities = class_values(content["probs"], f"{path}: probs")
        check_probabilities(probabilities, str(path))
    elif content.get("logits") is not None:
        probabilities = softmax(class_values(content["logits"], f"{path}: logits"))
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
        check_reasons(content.get("reasons", []), path),
    )


def _unusual(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    texts = content.get("unusual", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise EvaluationError(f"{path}: expected a list of texts as unusual, found {texts!r}. Predict the case again.")
    return tuple(texts)


def _integer(content: dict[str, Any], key: str, path: Path) -> int:
    value = content[key]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise EvaluationError(f"{path}: expected an integer >= 0 for {key}, found {content[key]!r}.")
    return value
