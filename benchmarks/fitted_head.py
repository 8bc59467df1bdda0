"""The fitted head beside plain rivals on the same folds: what it is worth, and where the rest is lost.

Takes a trained segmentation model with all its folds, fits a head to each (``nnUNet3DCT_fit_head``) and scores it out
of fold. Beside it, on the same cases, fitted on the training cases of each fold and scored on its validation cases:

- the volume of the target alone;
- the measurements of the target under the predicted and under the true outline, with the same choice of classifier;
- the same with the number of training cases reduced (learning curve);
- measurements whose training cases were outlined by networks that have not seen them, for the gap between seen and
  unseen cases.

Differences are paired: the same resamples of the cases (of patients where there are several cases each).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from tqdm import tqdm

import nnunet_3dct
from nnunet_3dct.data.splits import read_splits
from nnunet_3dct.evaluation.bootstrap import draw_patients, known_interval
from nnunet_3dct.evaluation.reliability import calibration_metrics
from nnunet_3dct.evaluation.selection.scores import ScoredCases, class_scores
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.checkpoint import read_checkpoint
from nnunet_3dct.formats.class_files import class_file_path, read_class_file
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels, read_dataset_labels
from nnunet_3dct.inference.measurements import SHAPE, measure_case
from nnunet_3dct.inference.preprocessing import network_spacing
from nnunet_3dct.networks.case_layout import MEASURED
from nnunet_3dct.networks.heads.case import CaseHead
from nnunet_3dct.paths import PREPROCESSED, nnunet_folder
from nnunet_3dct.runtime import choose_device
from nnunet_3dct.training.case_features import CaseFeatures
from nnunet_3dct.training.head_choice import CaseTable, choose
from nnunet_3dct.training.linear_classifiers import LDA, LOGISTIC, Candidate
from nnunet_3dct.upstream import PlansManager, infer_dataset_class

RESAMPLES = 2000
FITTED = "fitted head"
Rows = dict[str, np.ndarray]


class Comparison:
    """A model, its cases and what its networks show of them."""

    def __init__(self, model: Path, output: Path) -> None:
        self.model = model
        self.dataset = model.resolve().parent.name
        self.labels: ClassLabels = read_dataset_labels(self.dataset)
        self.splits = read_splits(self.dataset)
        start = time.perf_counter()
        self.fit = nnunet_3dct.fit_head(model, output, overwrite=True, progress=_bar, on_message=tqdm.write)
        self.seconds = time.perf_counter() - start
        self.known = sorted(case for case, label in self.labels.by_case.items() if label != UNKNOWN)
        plans, self.dataset_json = (
            read_json(model / f"{name}.json", "Model", ValueError) for name in ("plans", "dataset")
        )
        self.plans = PlansManager(plans)
        self.head: CaseHead
        self.features: list[Rows] = []
        for fold in range(len(self.splits)):
            checkpoint = read_checkpoint(model / f"fold_{fold}" / "checkpoint_final.pth")
            classes = self.labels.num_classes
            maker = CaseFeatures(checkpoint, plans, self.dataset_json, None, classes, choose_device("auto"))
            self.features.append(dict(maker.of_cases(nnunet_folder(PREPROCESSED) / self.dataset, self.known)))
            self.head, self.target = maker.head, maker.target
        self.configuration = self.plans.get_configuration(checkpoint.configuration)
        volume = self.head.layout.blocks["shape"][SHAPE.index("volume of all parts")]
        self.layout = replace(self.head.layout, blocks={**self.head.layout.blocks, "volume": (volume,)})
        self.fold_of = {case: fold for fold, split in enumerate(self.splits) for case in split["val"]}

    def part(self, fold: int, name: str) -> list[str]:
        return [case for case in self.splits[fold][name] if self.labels.by_case[case] != UNKNOWN]

    def true_outlines(self) -> Rows:
        """Features whose measurements are taken under the reference segmentation."""
        folder = nnunet_folder(PREPROCESSED) / self.dataset / self.configuration.data_identifier
        data = infer_dataset_class(str(folder))(str(folder))
        rows = {}
        for case in _bar(self.known):
            image, labels, _, properties = data.load_case(case)
            outline = np.isin(np.asarray(labels[0]), self.target.labels).astype(np.float32)
            spacing = network_spacing(properties, self.plans, self.configuration)
            measured = measure_case(np.asarray(image[: self.head.channels]), outline, spacing)
            rows[case] = np.concatenate([self.features[0][case][: self.head.layout.network_width], measured])
        return rows

    def unseen_outlines(self) -> Rows:
        """Measurements of every case by the network that was not trained on it."""
        return {case: self.features[self.fold_of[case]][case] for case in self.known}

    def score(
        self, training: list[Rows], held_out: list[Rows], offered: list[Candidate] | None, most: int | None = None
    ) -> Rows:
        """Probabilities of every case by a choice and a fit on the training cases of its fold."""
        found = {}
        for fold in range(len(self.splits)):
            cases = self.part(fold, "train")
            if most is not None:
                cases = sorted(np.random.default_rng(fold).permutation(cases)[:most].tolist())
            choice = choose(self._table(training[fold], cases), self.layout, self.labels.num_classes, offered=offered)
            rest = self.part(fold, "val")
            logits = choice.logits(np.stack([held_out[fold][case] for case in rest]))
            found.update(zip(rest, softmax(logits, axis=1), strict=True))
        return found

    def _table(self, rows: Rows, cases: list[str]) -> CaseTable:
        groups = tuple(self.labels.groups.get(case, case) for case in cases)
        classes = np.array([self.labels.by_case[case] for case in cases])
        return CaseTable(tuple(cases), np.stack([rows[case] for case in cases]), classes, groups)


def _bar(cases: Any) -> Any:
    return tqdm(cases, leave=False)


def _offer(*sets: tuple[str, ...]) -> list[Candidate]:
    return [Candidate(c, blocks, s) for blocks in sets for c, s in ((LDA, None), (LOGISTIC, 0.01), (LOGISTIC, 0.1))]


def main() -> None:
    """Fit, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="trained segmentation model with all folds")
    parser.add_argument("--fitted", type=Path, required=True, help="folder for the fitted model")
    parser.add_argument("-o", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    compared = Comparison(args.model, args.fitted)
    probabilities = {FITTED: _read_fitted(args.fitted, compared)}
    folds = compared.features
    measured = tuple(block for block in MEASURED if block in compared.head.layout.blocks)
    offered = _offer(measured, ("profile", "edge"))
    same = [compared.true_outlines()] * len(folds)
    unseen = [compared.unseen_outlines()] * len(folds)
    probabilities["volume alone"] = compared.score(folds, folds, [Candidate(LOGISTIC, ("volume",), 1.0)])
    probabilities["measurements, predicted outline"] = compared.score(folds, folds, offered)
    probabilities["measurements, true outline"] = compared.score(same, same, offered)
    probabilities["measurements, fitted to outlines of unseen cases"] = compared.score(unseen, folds, offered)
    for most in (25, 50):
        if most < min(len(compared.part(fold, "train")) for fold in range(len(folds))):
            probabilities[f"fitted head, {most} training cases"] = compared.score(folds, folds, None, most)
    result = _gather(probabilities, compared)
    print(table(result))
    args.o.write_text(json.dumps(result, indent=2) + "\n")


def _read_fitted(folder: Path, compared: Comparison) -> Rows:
    found = {}
    for case in compared.known:
        path = class_file_path(folder / f"fold_{compared.fold_of[case]}" / "validation", case)
        found[case] = read_class_file(path).probabilities
    return found


def _gather(probabilities: dict[str, Rows], compared: Comparison) -> dict[str, Any]:
    cases = compared.known
    truth = np.array([compared.labels.by_case[case] for case in cases])
    tables = {name: np.stack([rows[case] for case in cases]) for name, rows in probabilities.items()}
    patients = np.unique([compared.labels.groups.get(case, case) for case in cases], return_inverse=True)[1]
    once, resampled = _scores(truth, tables, patients)
    scores = {
        name: {
            "f1_macro": once[name]["f1_macro"].item(),
            "auc_macro": once[name]["auc_macro"].item(),
            "f1_macro_interval": known_interval(resampled[name]["f1_macro"]),
            "auc_macro_interval": known_interval(resampled[name]["auc_macro"]),
            "calibration_error": calibration_metrics(truth, rows)["expected_calibration_error"],
        }
        for name, rows in tables.items()
    }
    differences = {
        name: {
            "f1_macro": scores[FITTED]["f1_macro"] - scores[name]["f1_macro"],
            "interval": known_interval(resampled[FITTED]["f1_macro"] - resampled[name]["f1_macro"]),
        }
        for name in scores
        if name != FITTED
    }
    calibration = compared.fit["calibration"] or {}
    return {
        "dataset": compared.dataset,
        "labels": compared.labels.source.name,
        "n_cases": len(cases),
        "classes": np.bincount(truth).tolist(),
        "seconds_to_fit": compared.seconds,
        "chosen": {fold: fit["chosen"] for fold, fit in compared.fit["folds"].items()},
        "scores": scores,
        "fitted_head_minus": differences,
        "calibration_error_after": (calibration.get("after") or {}).get("expected_calibration_error"),
        "ensemble_calibration_error_after": (calibration.get("ensemble_after") or {}).get("expected_calibration_error"),
    }


def _scores(truth: np.ndarray, tables: Rows, units: np.ndarray) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Both scores of every rival: of the cases themselves ``(1,)`` and of the resamples ``(R,)``.

    The AUC of a resample that lacks a class is NaN.
    """
    probabilities = list(tables.values())
    predicted = np.stack([table_.argmax(1) for table_ in probabilities])
    number, classes = len(truth), probabilities[0].shape[1]
    scored = ScoredCases(truth, predicted, probabilities, np.empty((len(tables), number, 0)), classes, units)
    found = []
    for counts in (np.ones((1, number)), draw_patients(units, RESAMPLES)):
        f1, auc = (class_scores(scored, counts, metric) for metric in ("f1_macro", "auc_macro"))
        auc[(counts @ np.eye(classes)[truth] == 0).any(axis=1)] = np.nan
        found.append({name: {"f1_macro": f1[:, k], "auc_macro": auc[:, k]} for k, name in enumerate(tables)})
    return found[0], found[1]


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"{result['dataset']} ({result['labels']}), {result['n_cases']} cases {result['classes']}",
        "",
        "| out of fold | macro-F1 (95 % interval) | macro AUC | calibration error | fitted head better by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in result["scores"].items():
        (low, high), (auc_low, auc_high) = row["f1_macro_interval"], row["auc_macro_interval"]
        better = ""
        if name in result["fitted_head_minus"]:
            found = result["fitted_head_minus"][name]
            better = f"{found['f1_macro']:+.3f} ({found['interval'][0]:+.2f} to {found['interval'][1]:+.2f})"
        lines.append(
            f"| {name} | {row['f1_macro']:.3f} ({low:.2f} to {high:.2f}) | "
            f"{row['auc_macro']:.3f} ({auc_low:.2f} to {auc_high:.2f}) | {row['calibration_error']:.3f} | {better} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
