"""All that a report says about its cases, read once before anything is rendered."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from nnunet_3dct.evaluation.case_segmentation import case_metrics, structure_labels
from nnunet_3dct.evaluation.segmentation import check_settings
from nnunet_3dct.evaluation.segmentation_summary import summarize
from nnunet_3dct.evaluation.surface import quiet_monai
from nnunet_3dct.formats.image_readers import ImageReader
from nnunet_3dct.formats.label_volumes import (
    LabelScheme,
    Volume,
    find_reader,
    load_label_scheme,
    match_files,
    read_pair,
    read_volume,
)
from nnunet_3dct.formats.measurement_files import MeasurementFile, measurement_path, read_measurements
from nnunet_3dct.formats.metrics_segmentation import (
    WHOLE_ORGAN,
    CaseSegmentation,
    SegmentationMetrics,
    SegmentationSettings,
)
from nnunet_3dct.report.case_result import CaseResult, choose_pages
from nnunet_3dct.report.class_results import ClassResults, read_class_results
from nnunet_3dct.report.options import ReportOptions
from nnunet_3dct.report.orientation import orient_labels, read_image
from nnunet_3dct.report.pictures import add_image, draw_case
from nnunet_3dct.report.predicted_case import PredictedCase, check_grids, find_cases
from nnunet_3dct.report.provenance import Provenance, read_provenance

LESION_OVERLAP = 0.1  # of evaluate_segmentation

Progress = Callable[[Iterable[CaseResult], int], Iterable[CaseResult]]


@dataclass(frozen=True)
class Cohort:
    """All cases and their metrics.

    Attributes:
        options: of the report.
        scheme: what ``dataset.json`` says about label volumes.
        structures: name -> voxel labels, the whole organ among them where it is not the one structure.
        cases: sorted by name; those with a section of their own have pictures.
        segmentation: metrics over all cases, None without references.
        classes: None without class predictions.
        provenance: of the predictions.
        not_predicted: cases of the image folder without a prediction.
        left_out: file or case -> why it is in no case.
    """

    options: ReportOptions
    scheme: LabelScheme
    structures: dict[str, tuple[int, ...]]
    cases: list[CaseResult]
    segmentation: SegmentationMetrics | None
    classes: ClassResults | None
    provenance: Provenance
    not_predicted: list[str]
    left_out: dict[str, str]

    @property
    def pages(self) -> list[CaseResult]:
        """Cases with a section of their own."""
        return [case for case in self.cases if case.drawn]

    @property
    def drawn_structures(self) -> dict[str, tuple[int, ...]]:
        """The structures of dataset.json, without the whole organ that they make up."""
        return _without_organ(self.structures)


def collect(options: ReportOptions, progress: Progress | None = None) -> Cohort:
    """Find, read, check and evaluate the cases; each volume is read once.

    Args:
        options: folders and settings.
        progress: wraps the cases as they are read, called with their number too.

    Raises:
        SettingsError: a setting is out of range.
        EvaluationError: files are missing or do not belong together; the message names them.
        ImageError: a volume cannot be read or does not lie on the grid of its prediction.
        ClassLabelsError: the class labels cannot be used.
    """
    options.check()
    settings = check_settings(options.tolerance, LESION_OVERLAP)
    scheme = load_label_scheme(options.find_dataset_json())
    folders = find_cases(options, scheme.file_ending)
    provenance = read_provenance(options.predictions)
    classes = read_class_results(options, [found.case for found in folders.cases])
    missing: list[str] = []
    if options.labels:
        _, missing = match_files(options.labels, options.predictions, scheme.file_ending, chill=options.chill)
    read = _Reader(options, scheme, find_reader(scheme, folders.cases[0].prediction), settings, classes)
    check_grids(folders.cases, read.reader)
    with quiet_monai(), ThreadPoolExecutor(_workers(options, folders.cases)) as pool:
        results: Iterable[tuple[CaseResult, list[str]]] = pool.map(
            read.case, folders.cases, range(1, 1 + len(folders.cases))
        )
        rounded: list[str] = []
        cases = list(_unpack(results, rounded, progress, len(folders.cases)))
        chosen = choose_pages(cases, options.max_cases)
        pages = {case.number: case for case in pool.map(read.image, chosen)}
    cases = [pages.get(case.number) or replace(case, drawn=None) for case in cases]
    segmentation = _summary(cases, read.structures, settings, missing, rounded)
    return Cohort(
        options,
        scheme,
        read.structures,
        cases,
        segmentation,
        classes,
        provenance,
        folders.not_predicted,
        folders.left_out,
    )


def _workers(options: ReportOptions, cases: Sequence[PredictedCase]) -> int:
    return min(options.num_processes, len(cases), os.cpu_count() or 1)


def _unpack(
    results: Iterable[tuple[CaseResult, list[str]]], rounded: list[str], progress: Progress | None, number: int
) -> Iterable[CaseResult]:
    """The cases alone; what had to be rounded is added to ``rounded``."""

    def cases() -> Iterable[CaseResult]:
        for case, paths in results:
            rounded.extend(paths)
            yield case

    return progress(cases(), number) if progress else cases()


def _summary(
    cases: Sequence[CaseResult],
    structures: Mapping[str, tuple[int, ...]],
    settings: SegmentationSettings,
    missing: Sequence[str],
    rounded: Sequence[str],
) -> SegmentationMetrics | None:
    compared: list[CaseSegmentation] = [
        {"case": case.name, "metrics": dict(case.metrics)} for case in cases if case.metrics is not None
    ]
    return summarize(compared, structures, settings, missing=missing, rounded=rounded) if compared else None


def _without_organ(structures: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: labels for name, labels in structures.items() if name != WHOLE_ORGAN}


def _measurements(files: PredictedCase, volumes: Mapping[str, float]) -> MeasurementFile | None:
    """What the predictor wrote beside the mask, unless the mask was changed since."""
    path = measurement_path(files.prediction.parent, files.case)
    if not path.is_file():
        return None
    content = read_measurements(path)
    measured = {name: structure["volume_ml"] for name, structure in content["structures"].items()}
    same = all(math.isclose(measured.get(name, -1.0), ml, rel_tol=1e-3, abs_tol=1e-6) for name, ml in volumes.items())
    return content if same else None


class _Reader:
    """Reads cases, in several threads at a time."""

    def __init__(
        self,
        options: ReportOptions,
        scheme: LabelScheme,
        reader: ImageReader,
        settings: SegmentationSettings,
        classes: ClassResults | None,
    ) -> None:
        self.options, self.scheme, self.reader = options, scheme, reader
        self.settings, self.classes = settings, classes
        self.structures = structure_labels(scheme.content["labels"], scheme.ignore)
        if len(self.structures) == 2:  # the whole organ is the one structure there is
            del self.structures[WHOLE_ORGAN]

    def case(self, files: PredictedCase, number: int) -> tuple[CaseResult, list[str]]:
        """Labels and evidence of a case: metrics, and pictures without the image; and the files that were rounded."""
        metrics, reference, rounded = None, None, []
        if files.reference:
            pair = read_pair(files.reference, files.prediction, self.reader, self.scheme)
            metrics = case_metrics(pair, self.structures, self.settings)
            volume, rounded = pair.prediction, pair.rounded
            reference = orient_labels(pair.reference, files.case)
        else:
            volume = read_volume(files.prediction, self.reader, self.scheme)
            rounded = [str(files.prediction)] if volume.rounding else []
        evidence = read_image(files.evidence, files.case, "evidence", self.reader) if files.evidence else None
        drawn = draw_case(_without_organ(self.structures), orient_labels(volume, files.case), reference, evidence)
        classified = self.classes.by_case[files.case] if self.classes else None
        volumes = self._volumes(volume)
        measured = _measurements(files, volumes)
        return CaseResult(files, number, volumes, metrics, classified, drawn, measured), rounded

    def image(self, case: CaseResult) -> CaseResult:
        """The case with the slices of its image, if there is one."""
        if not case.files.image or not case.drawn:
            return case
        image = read_image(case.files.image, case.name, "image", self.reader)
        return replace(case, drawn=add_image(case.drawn, image, self.options.window))

    def _volumes(self, volume: Volume) -> dict[str, float]:
        voxel = float(np.prod(volume.properties["spacing"])) / 1000
        return {
            name: np.count_nonzero(np.isin(volume.labels, labels)) * voxel for name, labels in self.structures.items()
        }
