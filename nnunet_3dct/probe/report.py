"""The probe: classifiers on the training cases of each fold, scored on its validation cases beside the head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.evaluation.bootstrap import confidence_intervals
from nnunet_3dct.evaluation.class_metrics import class_metrics
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels
from nnunet_3dct.probe.classifiers import NAMES, fit_and_predict
from nnunet_3dct.probe.features import CaseFeatures, FeatureExtractor

SHOWN = ("f1_macro", "balanced_accuracy", "auc_macro")
Progress = Callable[[Iterable[str]], Iterable[str]]


def probe(
    model_folder: Path,
    preprocessed: Path,
    splits: list[dict[str, list[str]]],
    folds: list[int],
    labels: ClassLabels,
    *,
    checkpoint_name: str,
    target_labels: tuple[int | str, ...] | None = None,
    device: torch.device,
    resamples: int = 2000,
    progress: Progress = iter,
) -> dict[str, Any]:
    """Probe the networks of some folds.

    Each fold's network gives the features of its training and validation cases; classifiers are fitted on the
    former and scored on the latter. Over several folds the validation cases are put together. Cases of unknown
    class are left out.

    Args:
        model_folder, checkpoint_name, target_labels, device: see :class:`FeatureExtractor`.
        preprocessed: dataset folder in ``nnUNet_preprocessed``.
        splits: nnU-Net's splits.
        folds: folds to use.
        labels: class of each case.
        resamples: of the bootstrap.
        progress: wraps the cases of a fold, for a bar.

    Returns:
        ``scores``: name -> metrics with ``confidence_intervals``; ``n_features``, ``n_training`` and
        ``n_validation``; ``probabilities``: name -> case -> probabilities.

    Raises:
        SettingsError: a fold does not exist or has no case of known class in a part.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    sizes: dict[str, Any] = {"n_features": {}, "n_training": [], "n_validation": 0}
    for fold in folds:
        if not 0 <= fold < len(splits):
            raise SettingsError(f"-f {fold}: expected a fold from 0 to {len(splits) - 1} of the splits file.")
        train, val = (
            [case for case in splits[fold][part] if labels.by_case.get(case, UNKNOWN) != UNKNOWN]
            for part in ("train", "val")
        )
        if not train or not val:
            raise SettingsError(f"-f {fold}: expected training and validation cases of known class, found none.")
        extractor = FeatureExtractor(model_folder, fold, checkpoint_name, target_labels, device)
        seen = sorted(extractor.trained_on.intersection(val))
        if seen:
            raise SettingsError(
                f"-f {fold}: expected validation cases that the network has not seen, found {listing(seen)} among "
                "those it was trained on. The splits changed since; restore them or train again."
            )
        cases = dict(extractor.extract(preprocessed, progress([*train, *val])))
        sizes["n_training"].append(len(train))
        sizes["n_validation"] += len(val)
        for name, probs in _classify(cases, train, val, labels, sizes["n_features"]).items():
            found.setdefault(name, {}).update(zip(val, probs, strict=True))
    names = [str(k) for k in range(labels.num_classes)]
    return {
        "scores": {name: _score(probs, labels, names, resamples) for name, probs in found.items()},
        **sizes,
        "folds": folds,
        "checkpoint": checkpoint_name,
        "probabilities": found,
    }


def _classify(
    cases: Mapping[str, CaseFeatures],
    train: list[str],
    val: list[str],
    labels: ClassLabels,
    widths: dict[str, int],
) -> dict[str, np.ndarray]:
    """Probabilities of the validation cases by each way of telling the class."""
    sets = {
        "network features": {case: features.pooled for case, features in cases.items()},
        "intensity and shape of the target": {
            case: np.array(list(features.target.values())) for case, features in cases.items()
        },
    }
    y = np.array([labels.by_case[case] for case in train])
    found: dict[str, np.ndarray] = {}
    head = [cases[case].head_probs for case in val]
    if head[0] is not None:
        found["the network's head"] = np.stack([row for row in head if row is not None])
        if found["the network's head"].shape[1] != labels.num_classes:
            raise SettingsError(
                f"Class labels {labels.source}: expected the {found[next(iter(found))].shape[1]} classes of the "
                f"network's head, found {labels.num_classes}."
            )
    for name, features in sets.items():
        x, held_out = (np.stack([features[case] for case in part]) for part in (train, val))
        widths[name] = x.shape[1]
        for classifier in NAMES:
            found[f"{classifier}, {name}"] = fit_and_predict(classifier, x, y, held_out, labels.num_classes)
    return found


def _score(probs: Mapping[str, np.ndarray], labels: ClassLabels, names: list[str], resamples: int) -> dict[str, Any]:
    truth = np.array([labels.by_case[case] for case in probs])
    table = np.stack(list(probs.values()))
    predicted = table.argmax(1)
    metrics = dict(class_metrics(truth, predicted, table, names))
    metrics["confidence_intervals"] = confidence_intervals(truth, predicted, table, resamples=resamples)
    return metrics


def format_report(result: Mapping[str, Any]) -> str:
    """Lay out one line for each way of telling the class."""
    width = max(len(name) for name in result["scores"])
    lines = [
        f"{result['n_validation']} validation cases of fold(s) {listing(result['folds'])}, "
        f"{listing(result['n_training'])} training cases; 95 % intervals over cases",
        "",
        f"{'':{width}}   macro-F1                 balanced accuracy        macro AUC",
    ]
    for name, metrics in result["scores"].items():
        cells = []
        for key in SHOWN:
            low, high = metrics["confidence_intervals"].get(key, (None, None))
            value = metrics[key]
            cells.append("-" if value is None else f"{value:.3f} ({low:.2f} to {high:.2f})")
        lines.append(f"{name:{width}}   " + "   ".join(f"{cell:22}" for cell in cells))
    widths = ", ".join(f"{name}: {n}" for name, n in result["n_features"].items())
    return "\n".join([*lines, "", f"features: {widths}"])
