"""What produced the predictions, as ``prediction_manifest.json`` tells it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import EvaluationError

# key in produced_by or arguments, name on the page
SETTINGS = (
    ("trainer", "Trainer"),
    ("d", "Dataset"),
    ("c", "Configuration"),
    ("p", "Plans"),
    ("checkpoint", "Checkpoint"),
    ("folds", "Folds"),
    ("backend", "Backend"),
    ("precision", "Precision"),
    ("device", "Device"),
    ("tta", "Mirroring"),
    ("step_size", "Window step"),
    ("skip_empty", "Empty windows left out"),
)


@dataclass(frozen=True)
class Provenance:
    """Settings and versions as (name, value), and the reason of every case that failed."""

    settings: list[tuple[str, str]] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def read_provenance(predictions: Path) -> Provenance:
    """Read the manifest, or those of all parts of a run that was split; empty if there is none.

    Raises:
        EvaluationError: a manifest is no JSON object.
    """
    manifests = [_read(path) for path in sorted(predictions.glob("prediction_manifest*.json"))]
    if not manifests:
        return Provenance()
    first = manifests[0]
    known = {**_part(first, "arguments"), **_part(first, "produced_by")}
    return Provenance(
        [(name, _text(known[key])) for key, name in SETTINGS if known.get(key) is not None],
        [(name, _text(value)) for name, value in _part(first, "versions").items()],
        {case: str(reason) for manifest in manifests for case, reason in _part(manifest, "failed").items()},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}. Predict again, or move the file away.") from error
    if not isinstance(content, dict):
        raise EvaluationError(
            f"{path}: expected an object as the predictor writes it, found {type(content).__name__}. Predict again, "
            "or move the file away."
        )
    return content


def _part(manifest: dict[str, Any], key: str) -> dict[str, Any]:
    found = manifest.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
