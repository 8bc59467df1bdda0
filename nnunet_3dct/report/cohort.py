"""All that a report says about its cases, collected before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.evaluation.segmentation import WHOLE_ORGAN, evaluate_segmentation, structure_labels
from nnunet_3dct.formats.label_volumes import LabelScheme, load_label_scheme
from nnunet_3dct.report.case_files import CaseFiles, find_case_files, images_without_prediction
from nnunet_3dct.report.class_results import CaseClass, ClassResults, read_class_results
from nnunet_3dct.report.grids import read_labels
from nnunet_3dct.report.options import ReportOptions
from nnunet_3dct.report.provenance import Provenance, read_provenance


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        files: where it lies.
        metrics: by structure, those of ``evaluate_segmentation``; without references ``volume_prediction_ml`` alone.
        result: its class, None without class predictions.
        number: position in the report, from 1.
    """

    files: CaseFiles
    metrics: Mapping[str, Mapping[str, Any]]
    result: CaseClass | None
    number: int

    @property
    def name(self) -> str:
        """Identifier: the file name without ending."""
        return self.files.case

    @property
    def anchor(self) -> str:
        """Identifier of its section; names of cases may hold what no identifier may."""
        return f"case-{self.number}"

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice of the structures of dataset.json that have one."""
        values = [m["Dice"] for name, m in self.metrics.items() if name != WHOLE_ORGAN and m.get("Dice") is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class Cohort:
    """All cases and their metrics; ``segmentation`` and ``classes`` are None if there is nothing to compare."""

    options: ReportOptions
    scheme: LabelScheme
    structures: dict[str, tuple[int, ...]]
    cases: list[Case]
    segmentation: dict[str, Any] | None
    classes: ClassResults | None
    provenance: Provenance
    not_predicted: list[str]

    @property
    def known_labels(self) -> tuple[int, ...]:
        """Every value that a label volume may hold."""
        return known_labels(self.scheme)

    @property
    def drawn_structures(self) -> dict[str, tuple[int, ...]]:
        """The structures of dataset.json, without the whole organ that they make up."""
        return {name: labels for name, labels in self.structures.items() if name != WHOLE_ORGAN}


def known_labels(scheme: LabelScheme) -> tuple[int, ...]:
    """Return background, foreground and ignore label."""
    return (0, *scheme.foreground, *(() if scheme.ignore is None else (scheme.ignore,)))


def collect(options: ReportOptions) -> Cohort:
    """Find, check and evaluate the cases.

    Raises:
        EvaluationError: files are missing or do not belong together; the message names them.
        ImageError: a volume cannot be read or does not lie on the grid of its prediction.
        ClassLabelsError: the class labels cannot be used.
    """
    options.check()
    dataset_json = options.find_dataset_json()
    scheme = load_label_scheme(dataset_json)
    structures = structure_labels(scheme.content["labels"], scheme.ignore)
    if len(structures) == 2:  # the whole organ is the one structure there is
        del structures[WHOLE_ORGAN]
    files = find_case_files(options, scheme.file_ending)
    classes = read_class_results(options, [found.case for found in files])
    segmentation, metrics = None, {}
    if options.labels:
        segmentation = _evaluate(options, options.labels, dataset_json)
        metrics = {case["case"]: case["metrics"] for case in segmentation["metric_per_case"]}
    cases = [
        Case(
            found,
            metrics.get(found.case) or _volumes(found, structures, scheme),
            classes.by_case[found.case] if classes else None,
            number,
        )
        for number, found in enumerate(files, start=1)
    ]
    left_out = images_without_prediction(options, files, scheme.file_ending)
    provenance = read_provenance(options.predictions)
    return Cohort(options, scheme, structures, cases, segmentation, classes, provenance, left_out)


def _evaluate(options: ReportOptions, references: Path, dataset_json: Path) -> dict[str, Any]:
    return evaluate_segmentation(
        references,
        options.predictions,
        dataset_json,
        tolerance=options.tolerance,
        num_processes=options.num_processes,
        chill=options.chill,
    )


def _volumes(files: CaseFiles, structures: Mapping[str, tuple[int, ...]], scheme: LabelScheme) -> dict[str, Any]:
    """Predicted volumes in ml, where there is no reference to compare with."""
    volume = read_labels(files.prediction, files.case, known_labels(scheme))
    voxel = float(np.prod(volume.spacing)) / 1000
    return {
        name: {"volume_prediction_ml": np.count_nonzero(np.isin(volume.array, labels)) * voxel}
        for name, labels in structures.items()
    }
