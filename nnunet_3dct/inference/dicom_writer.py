"""DICOM results beside the segmentation of a case whose image was a DICOM series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import SimpleITK

from nnunet_3dct.dicom.algorithm import Algorithm
from nnunet_3dct.dicom.cases import DicomCase
from nnunet_3dct.dicom.codes import meanings, unknown_labels
from nnunet_3dct.dicom.findings import structures
from nnunet_3dct.dicom.report import ClassResult, Numbers
from nnunet_3dct.dicom.results import is_whole_result, write_results
from nnunet_3dct.formats.class_files import ClassFile
from nnunet_3dct.formats.dicom_files import SUFFIXES, dicom_result_path
from nnunet_3dct.formats.label_codes import read_label_codes
from nnunet_3dct.formats.measurement_files import HU, MeasurementFile
from nnunet_3dct.inference.model import TrainedModel


class DicomWriter:
    """Writes the results of cases that are DICOM series.

    Args:
        model: whose answers are written.
        series: case -> its series.
        kinds: of results, see :mod:`nnunet_3dct.formats.dicom_files`; may be empty.

    Attributes:
        messages: labels for which no code is known.

    Raises:
        SettingsError: ``label_codes`` in the model's dataset.json cannot be used.
    """

    def __init__(self, model: TrainedModel, series: Mapping[str, DicomCase], kinds: Sequence[str] = ()) -> None:
        self.series, self.kinds = series, tuple(kinds)
        self._names = model.dataset_json["labels"]
        self._codes = read_label_codes(model.dataset_json) if kinds else {}
        self._algorithm = _algorithm(model)
        self._class_names = model.class_names or [f"class {n}" for n in range(model.head_config["num_classes"])]
        unknown = unknown_labels(meanings(structures(self._names), self._codes)) if kinds else {}
        self.messages = list(unknown.values())

    def write(
        self, folder: Path, name: str, case: str, segmentation: Path, content: ClassFile, measured: MeasurementFile
    ) -> ClassFile:
        """Write the results of a case; returns its class file with what is to be said of them.

        Args:
            folder: where they go.
            name: of the files.
            case: whose series they refer to.
            segmentation: file with the label map.
            content: class file of the case.
            measured: what was measured of its structures; goes into the report.

        Raises:
            ImageError: the headers of the series cannot be used.
            OutputError: a file cannot be written.
        """
        content = {**content, "series": self.series[case].series.uid}
        if self.kinds:
            left_out = write_results(
                folder, name, self.kinds, self.series[case].files, SimpleITK.ReadImage(str(segmentation)), self._names,
                codes=self._codes, algorithm=self._algorithm, result=self._class_result(content),
                numbers=_numbers(measured),
            )  # fmt: skip
            if left_out:
                content["without_dicom"] = left_out
        return content

    def is_whole(self, folder: Path, case: str, without: Sequence[str]) -> bool:
        """Whether the results of an earlier run are there, but for those that an empty segmentation is without."""
        return all(kind in without or is_whole_result(dicom_result_path(folder, case, kind)) for kind in self.kinds)

    def is_of_series(self, case: str, content: Mapping[str, object]) -> bool:
        """Whether an earlier run's class file is of the series that now has the name of the case."""
        return content.get("series") == self.series[case].series.uid

    def _class_result(self, content: ClassFile) -> ClassResult:
        remarks = list(content.get("unusual", []))
        basis = content.get("without_basis")
        if basis:
            remarks = [f"class without basis: {basis}", *(remark for remark in remarks if remark != basis)]
        if content.get("review"):
            remarks.insert(0, "marked for review")
        return ClassResult(self._class_names, content["probs"], content["pred"], remarks)


def remove_dicom_results(folder: Path, case: str) -> None:
    """Delete what an earlier run left of the case."""
    for kind in SUFFIXES:
        dicom_result_path(folder, case, kind).unlink(missing_ok=True)


def _numbers(measured: MeasurementFile) -> dict[str, Numbers]:
    """Of each structure; intensities only where they are HU."""
    channel = next((name for name, unit in measured["units"].items() if unit == HU), None)
    found = {}
    for name, structure in measured["structures"].items():
        diameter = structure["longest_diameter"]
        found[name] = Numbers(
            mean=structure["mean"].get(channel) if channel else None,
            sd=structure["sd"].get(channel) if channel else None,
            longest_diameter=diameter["mm"] if diameter else None,
        )
    return found


def _algorithm(model: TrainedModel) -> Algorithm:
    about = model.describe()
    calibrated = "no" if model.temperature is None else f"temperature {model.temperature:.4g}"
    return Algorithm(
        f"{model.plans_manager.dataset_name}, {about['trainer']}",
        about["model"],
        {
            "folds": ", ".join(str(fold) for fold in about["folds"]),
            "checkpoint": about["checkpoint"],
            "mirroring": about["tta"],
            "step size": f"{about['step_size']:g}",
            "windows of air left out": "yes" if about["skip_empty"] else "no",
            "runs on": f"{about['backend']}, {about['precision']}",
            "probabilities calibrated": calibrated,
        },
    )
