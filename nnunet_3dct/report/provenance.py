"""What produced the predictions, as the manifest of the prediction folder tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nnunet_3dct.evaluation.provenance import part_of
from nnunet_3dct.formats.manifest import read_manifests

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
    manifests = read_manifests(predictions)
    if not manifests:
        return Provenance()
    first = manifests[0]
    known = {**part_of(first, "arguments"), **part_of(first, "produced_by")}
    return Provenance(
        [(name, _text(known[key])) for key, name in SETTINGS if known.get(key) is not None],
        [(name, _text(value)) for name, value in part_of(first, "versions").items()],
        {case: str(reason) for manifest in manifests for case, reason in part_of(manifest, "failed").items()},
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
