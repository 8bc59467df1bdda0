"""The prediction folder: files of a case appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from nnunet_3dct.errors import EvaluationError, ImageError
from nnunet_3dct.evaluation.label_measurements import measure_structures
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.class_files import ClassFile, class_file_path, read_class_file, write_class_file
from nnunet_3dct.formats.clinical import Covariates
from nnunet_3dct.formats.evidence_files import evidence_path
from nnunet_3dct.formats.image_files import check_image_file
from nnunet_3dct.formats.label_volumes import PLACEMENT, PROBABILITIES, PROBABILITY_SUFFIXES
from nnunet_3dct.formats.measurement_files import measurement_path, read_measurements, write_measurements
from nnunet_3dct.inference.case import CaseAnswer, note_target, segment
from nnunet_3dct.inference.dicom_writer import DicomWriter, remove_dicom_results
from nnunet_3dct.inference.explanation import write_evidence
from nnunet_3dct.inference.model import TrainedModel

PLAIN_NAME = "case"  # of files while they are hidden: ITK writes X.nii.nii.gz, asked for, to X.nii.gz


@contextlib.contextmanager
def partial_folder(output_folder: Path, case: str) -> Iterator[Path]:
    """A hidden folder inside ``output_folder`` that is gone afterwards, whatever happens."""
    folder = output_folder / f".{case}.{os.getpid()}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(output_folder: Path, cases: Iterable[str]) -> None:
    """Delete partial folders that a killed run left for ``cases`` (other parts' cases are not touched)."""
    ours = set(cases)
    for folder in output_folder.glob(".*.partial"):
        found = re.fullmatch(r"\.(.+)\.\d+\.partial", folder.name)
        if found and found[1] in ours:
            shutil.rmtree(folder, ignore_errors=True)


class CaseWriter:
    """Writes all files of a case.

    Args:
        model: whose answers are written.
        output_folder: for segmentations and probabilities.
        class_folder: for the class files.
        save_probabilities: also write stock's ``<case>.npz`` and ``<case>.pkl``.
        covariates: case -> its covariates, for a model that was trained with some.
        dicom: for images that are DICOM series.
    """

    def __init__(
        self,
        model: TrainedModel,
        output_folder: Path,
        class_folder: Path,
        save_probabilities: bool = False,
        covariates: Mapping[str, Covariates] | None = None,
        dicom: DicomWriter | None = None,
    ) -> None:
        self.model = model
        self.dicom = dicom
        self.output_folder = output_folder
        self.class_folder = class_folder
        self.save_probabilities = save_probabilities
        self.covariates = covariates or {}
        self.ending = str(model.dataset_json["file_ending"])
        self._reader = model.plans_manager.image_reader_writer_class

    def write(self, answer: CaseAnswer) -> ClassFile:
        """Export into hidden folders, read back, then move; returns the class file.

        What an earlier run left of the case stays until all is whole. Then its segmentation goes first and the new
        one comes last, so that a kill in between leaves a case that :meth:`is_whole` calls incomplete.

        Raises:
            ImageError: what was written cannot be read back, as on a full disk.
            OutputError: the class file or a DICOM result cannot be written.
        """
        case = answer.case
        with partial_folder(self.output_folder, case) as folder, partial_folder(self.class_folder, case) as classes:
            written = self._segmentation(folder, PLAIN_NAME)
            if self.save_probabilities:
                self._export_with_probabilities(folder / PLAIN_NAME, answer)
                check_image_file(written, reader=self._reader)
                segmentation, _ = self._reader().read_seg(str(written))
            else:
                segmentation = segment(self.model, answer)
                self._reader().write_seg(segmentation, str(written), answer.properties)
                check_image_file(written, reader=self._reader)
            content = note_target(self.model, answer, segmentation)
            if answer.evidence is not None:
                plans, path = self.model.plans_manager, evidence_path(folder, PLAIN_NAME, self.ending)
                write_evidence(answer.evidence, answer.properties, plans, path, self.ending)
                check_image_file(path)
            if answer.stored is not None:
                measured = measure_structures(written, answer.stored(), self.model.dataset_json, case, self._reader)
                write_measurements(measured, measurement_path(folder, PLAIN_NAME))
                if self.dicom is not None:
                    content = self.dicom.write(folder, PLAIN_NAME, case, written, content, measured)
            write_class_file(content, classes, case)
            self._remove(case)
            class_file_path(classes, case).replace(class_file_path(self.class_folder, case))
            files = [path for path in folder.rglob("*") if path.is_file()]
            for path in sorted(files, key=lambda path: path == written):
                name = f"{case}{path.name.removeprefix(PLAIN_NAME)}"
                place = self.output_folder / path.relative_to(folder).with_name(name)
                place.parent.mkdir(exist_ok=True)
                path.replace(place)
        return content

    def _export_with_probabilities(self, path: Path, answer: CaseAnswer) -> None:
        # imports the compiler and the training code: a second that only this option is worth
        from nnunet_3dct.upstream import export_prediction_from_logits

        export_prediction_from_logits(
            answer.logits.cpu(),
            answer.properties,
            self.model.configuration_manager,
            self.model.plans_manager,
            self.model.dataset_json,
            str(path),
            save_probabilities=True,
            num_threads_torch=torch.get_num_threads(),
        )

    def _segmentation(self, folder: Path, case: str) -> Path:
        return folder / f"{case}{self.ending}"

    def _remove(self, case: str) -> None:
        """Delete what an earlier run left and would not fit the new segmentation, which itself goes first."""
        self._segmentation(self.output_folder, case).unlink(missing_ok=True)
        for suffix in PROBABILITY_SUFFIXES:
            (self.output_folder / f"{case}{suffix}").unlink(missing_ok=True)
        evidence_path(self.output_folder, case, self.ending).unlink(missing_ok=True)
        remove_dicom_results(self.output_folder, case)
        measurement_path(self.output_folder, case).unlink(missing_ok=True)

    def exists(self, case: str) -> bool:
        """Whether there is anything of the case."""
        return (
            class_file_path(self.class_folder, case).exists() or self._segmentation(self.output_folder, case).exists()
        )

    def is_whole(self, case: str) -> bool:
        """Whether every file of the case exists and is whole."""
        try:
            check_image_file(self._segmentation(self.output_folder, case), reader=self._reader)
            if read_class_file(class_file_path(self.class_folder, case)).probabilities is None:
                return False
            if self.dicom is not None and not self._has_dicom_results(case):
                return False
            read_measurements(measurement_path(self.output_folder, case))
            if self.model.options.explain:
                check_image_file(evidence_path(self.output_folder, case, self.ending))
            if self.save_probabilities:
                if not (self.output_folder / f"{case}{PLACEMENT}").is_file():
                    return False
                with zipfile.ZipFile(self.output_folder / f"{case}{PROBABILITIES}") as archive:
                    return archive.testzip() is None
        except (ImageError, EvaluationError, OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
            return False
        return True

    def _has_dicom_results(self, case: str) -> bool:
        content = read_json(class_file_path(self.class_folder, case), "Class file", EvaluationError)
        return self.dicom is not None and self.dicom.is_whole(
            self.output_folder, case, content.get("without_dicom") or []
        )

    def is_of_this_model(self, case: str) -> bool:
        """Whether the class file is of the same series, weights, settings, calibration and covariates."""
        try:
            content = read_json(class_file_path(self.class_folder, case), "Class file", EvaluationError)
            found, temperature = content["produced_by"], content.get("temperature")
            ours = {key: value for key, value in self.model.describe().items() if key != "device"}
            return (
                (self.dicom is None or self.dicom.is_of_series(case, content))
                and temperature == self.model.temperature
                and content.get("covariates") == self.covariates.get(case)
                and all(found.get(key) == value for key, value in ours.items())
            )
        except (EvaluationError, KeyError, TypeError, AttributeError):
            return False
