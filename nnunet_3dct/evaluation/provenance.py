"""Which runs made the class predictions of a folder: one model with one set of settings, or several mixed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import listing
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.manifest import read_manifests

MODEL = ("model",)
MODEL_PARTS = ("trainer", "head_weights", "checkpoint", "folds")  # of files that name no model
SETTINGS = ("tta", "mirror_axes", "step_size", "skip_empty", "backend", "precision")
SHOWN = 5


def mixed_runs(predictions: Mapping[str, ClassPrediction], folder: Path) -> list[str]:
    """What is wrong with taking the predictions of a folder for those of one model.

    Args:
        predictions: of the folder, case -> prediction.
        folder: where they lie; its manifests, if there are any, say which run wrote it last.

    Returns:
        A line for class files of several models, for several settings of one model, for cases that are not of
        the run (or runs, of a split one) that the manifest describes, and for those that it failed on.

    Raises:
        EvaluationError: a manifest cannot be read.
    """
    stated = {case: prediction.produced_by for case, prediction in predictions.items() if prediction.produced_by}
    described = [part for manifest in read_manifests(folder) if (part := part_of(manifest, "produced_by"))]
    foreign = [case for case, found in stated.items() if described and not any(_same(found, d) for d in described)]
    lines = [
        *_several(stated, _model, "models", "Their scores say nothing about any of them; predict all cases with one"),
        *_several(stated, _settings, "settings", "Predict all cases alike"),
    ]
    if foreign and len(foreign) < len(stated):
        lines.append(
            f"{len(foreign)} of {len(predictions)} cases were not predicted by the run that prediction_manifest.json "
            f"describes: {listing(foreign, SHOWN)}"
        )
    elif foreign:
        lines.append("the class files are not of the run that prediction_manifest.json describes")
    earlier = [case for manifest in read_manifests(folder) for case in manifest.get("earlier_files") or ()]
    if earlier := sorted({*earlier}.intersection(predictions)):
        lines.append(
            f"the last run failed on {_cases(len(earlier))}, with files of an earlier run: {listing(earlier, SHOWN)}"
        )
    return lines


def cases_without_basis(predictions: Mapping[str, ClassPrediction]) -> list[str]:
    """A line that names the cases whose class the predictor itself calls without basis, with its reasons."""
    reasons = {case: p.without_basis for case, p in predictions.items() if p.without_basis}
    if not reasons:
        return []
    shown = [f"{case} ({reason})" for case, reason in reasons.items()]
    return [f"the class of {_cases(len(reasons))} is without basis: {listing(shown, SHOWN)}"]


def unusual_cases(predictions: Mapping[str, ClassPrediction]) -> list[str]:
    """A line that names the cases that the predictor calls unlike the training cases, and in which way.

    What :func:`cases_without_basis` says of a case is not said twice.
    """
    remarks = {case: [text for text in p.unusual if text != p.without_basis] for case, p in predictions.items()}
    shown = [f"{case} ({'; '.join(texts)})" for case, texts in remarks.items() if texts]
    if not shown:
        return []
    return [f"{_cases(len(shown))} unlike the training cases: {listing(shown, SHOWN)}"]


def part_of(manifest: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under ``key``, empty where there is none."""
    value = manifest.get(key)
    return value if isinstance(value, dict) else {}


def _model(produced_by: Mapping[str, Any]) -> dict[str, Any]:
    keys = MODEL if produced_by.get("model") else MODEL_PARTS
    return {key: produced_by[key] for key in keys if key in produced_by}


def _settings(produced_by: Mapping[str, Any]) -> dict[str, Any]:
    return {key: produced_by[key] for key in SETTINGS if key in produced_by}


def _same(produced_by: Mapping[str, Any], described: Mapping[str, Any]) -> bool:
    """Whether model and settings agree in all that both state."""
    keys = MODEL if produced_by.get("model") and described.get("model") else MODEL_PARTS
    return all(
        _key(produced_by[key]) == _key(described[key])
        for key in (*keys, *SETTINGS)
        if key in produced_by and key in described
    )


def _several(stated: Mapping[str, Mapping[str, Any]], of: Any, what: str, remedy: str) -> list[str]:
    """A line if ``of(produced_by)`` differs between the cases."""
    groups: dict[str, list[str]] = {}
    values: dict[str, dict[str, Any]] = {}
    for case, produced_by in stated.items():
        key = _key(of(produced_by))
        groups.setdefault(key, []).append(case)
        values[key] = of(produced_by)
    if len(groups) < 2:
        return []
    differing = {
        name for found in values.values() for name in found if len({_key(v.get(name)) for v in values.values()}) > 1
    }
    shown = [
        f"{listing(cases, SHOWN)} ({', '.join(f'{n} {values[key].get(n)}' for n in sorted(differing))})"
        for key, cases in sorted(groups.items(), key=lambda item: len(item[1]))
    ]
    return [f"the class files are of {len(groups)} {what}: {'; '.join(shown[:SHOWN])}. {remedy}"]


def _key(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _cases(number: int) -> str:
    return "1 case" if number == 1 else f"{number} cases"
