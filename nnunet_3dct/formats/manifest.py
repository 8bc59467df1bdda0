"""``prediction_manifest.json``: what ran, with which versions and settings, how long, and what failed."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from nnunet_3dct import __version__
from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.formats.atomic import read_json, write_json

PATTERN = "prediction_manifest*.json"
_REMEDY = "Predict again, or move the file away."


class Seconds(TypedDict):
    """Times: of loading the model, of the whole run, and of each case in ``preprocess``, ``network``, ``export``."""

    loading: float
    total: float
    per_case: dict[str, dict[str, float]]


class Manifest(TypedDict):
    """Content of ``prediction_manifest.json``.

    Attributes:
        versions: of this package, Python and what it rests on.
        device: where the network ran.
        arguments: of the command, or as the caller gave them.
        head: describes the classification head.
        produced_by: the model (``model`` is a fingerprint of its weights) and the settings.
        cases: of this run or part.
        kept: of these, those that an earlier run had predicted in the same way.
        failed: case -> reason.
        earlier_files: failed cases whose files in the folder are of an earlier run; the tables leave them out.
        tracebacks: case -> where an unexpected error came from.
        left_out: file or case of the image folder -> why it is in no case.
        review: case -> highest class probability, of those below the threshold or unlike the training cases.
        without_basis: case -> why its class rests on nothing.
        unusual: case -> in which way it is unlike the training cases.
        set_aside: DICOM file -> what it is, where it is no slice of a volume, such as a localizer.
        repairs: case -> what was changed when its DICOM series was read.
        seconds: see :class:`Seconds`.
    """

    versions: dict[str, str]
    device: str
    arguments: dict[str, Any]
    head: dict[str, Any]
    produced_by: dict[str, Any]
    cases: list[str]
    kept: NotRequired[list[str]]
    failed: dict[str, str]
    earlier_files: NotRequired[list[str]]
    tracebacks: NotRequired[dict[str, str]]
    left_out: NotRequired[dict[str, str]]
    review: dict[str, float]
    without_basis: NotRequired[dict[str, str]]
    unusual: NotRequired[dict[str, list[str]]]
    set_aside: NotRequired[dict[str, str]]
    repairs: NotRequired[dict[str, list[str]]]
    seconds: Seconds


def manifest_path(folder: Path, part_id: int = 0, num_parts: int = 1) -> Path:
    """``prediction_manifest.json``, or ``prediction_manifest_part<I>of<N>.json`` of a part of a split run."""
    part = "" if num_parts == 1 else f"_part{part_id}of{num_parts}"
    return folder / f"prediction_manifest{part}.json"


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest.

    Raises:
        OutputError: it cannot be written.
    """
    write_json(manifest, path)


def read_manifest(path: Path) -> Manifest:
    """Read one manifest; keys that it lacks are filled in empty.

    Raises:
        EvaluationError: it cannot be read or is no JSON object.
    """
    content = read_json(path, "Manifest", EvaluationError, _REMEDY)
    if not isinstance(content, dict):
        raise EvaluationError(
            f"{path}: expected an object as the predictor writes it, found {type(content).__name__}. {_REMEDY}"
        )
    empty: dict[str, Any] = {
        "versions": {}, "device": "", "arguments": {}, "head": {}, "produced_by": {}, "cases": [], "failed": {},
        "review": {}, "seconds": {"loading": 0.0, "total": 0.0, "per_case": {}},
    }  # fmt: skip
    usable = {key: value for key, value in content.items() if isinstance(value, type(empty.get(key, value)))}
    return {**empty, **usable}  # type: ignore[typeddict-item]


def read_manifests(folder: Path) -> list[Manifest]:
    """Manifests of a prediction folder, one for each part of a run that was split; often none.

    Raises:
        EvaluationError: one of them cannot be read or is no JSON object.
    """
    return [read_manifest(path) for path in sorted(folder.glob(PATTERN))]


def versions() -> dict[str, str]:
    """Of this package, Python and what a prediction rests on."""
    return {
        "nnunet_3dct": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("nnunetv2", "torch", "numpy", "SimpleITK")},
    }
