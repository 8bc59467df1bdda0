"""Prediction from Python: load once, call on files, SimpleITK images or arrays."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError, SettingsError
from nnunet_3dct.formats.class_files import ClassFile, class_file
from nnunet_3dct.formats.image_files import check_case_files, check_finite, geometry_differences, image_geometry
from nnunet_3dct.inference.explanation import evidence_image, evidence_on_image_grid, note_empty_map
from nnunet_3dct.inference.model import MultiTaskPredictor
from nnunet_3dct.inference.preprocessing import preprocess, segmentation_from_logits
from nnunet_3dct.paths import find_folds
from nnunet_3dct.runtime import choose_device

File = str | PathLike[str]


@dataclass(frozen=True)
class Prediction:
    """Both answers for one case.

    Attributes:
        segmentation: labels ``(Z, Y, X)`` on the grid of the input.
        probs: class probabilities, sum 1; calibrated if the model is.
        pred: class with the highest probability.
        class_name: its name, if the model knows names.
        report: what ``nnUNet3DCT_predict`` writes into ``<case>_classification.json``.
        seconds: spent in ``preprocess``, ``network`` and ``export``.
        review: whether the highest of them is below the threshold ``abstain``; None without one.
        evidence: where it speaks for the class, ``(Z, Y, X)``, 0 to 1, with ``explain=True``.
    """

    segmentation: np.ndarray
    probs: tuple[float, ...]
    pred: int
    class_name: str | None
    report: ClassFile
    seconds: dict[str, float]
    reference: SimpleITK.Image | None = None
    evidence: np.ndarray | None = None
    review: bool | None = None

    def image(self) -> SimpleITK.Image:
        """The segmentation with the geometry of the input image.

        Raises:
            ImageError: the input was an array, which has no origin and direction.
        """
        if self.reference is None:
            raise ImageError("Prediction.image: expected a file or a SimpleITK image as input, found an array.")
        flat = self.reference.GetDimension() == 2
        image = SimpleITK.GetImageFromArray(self.segmentation[0] if flat else self.segmentation)
        image.CopyInformation(self.reference)
        return image


class Predictor:
    """A trained model in memory.

    Args:
        model_folder: ``<nnUNet_results>/<dataset>/<trainer>__<plans>__<configuration>``.
        folds: to average; None for all that have the checkpoint.
        checkpoint: name inside each fold's folder.
        device: ``auto``, ``cuda``, ``cpu`` or ``mps``.
        tta: mirroring, ``none``, ``pair``, ``flips`` or ``full``.
        step_size: share of the patch between windows, above 0 to 1.
        skip_empty: leave out windows that show nothing but air.
        backend, precision: see :func:`~nnunet_3dct.inference.backends.make_backend`.
        explain: also say where the evidence for the predicted class lies.
        abstain: mark cases whose highest class probability is below for review.

    Raises:
        CheckpointError: no such model, or its files cannot be used.
        SettingsError: device, runtime or precision are not there.
    """

    def __init__(
        self,
        model_folder: File,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = "checkpoint_final.pth",
        device: str = "auto",
        tta: str = "full",
        step_size: float = 0.5,
        skip_empty: bool = False,
        backend: str = "auto",
        precision: str = "auto",
        explain: bool = False,
        abstain: float | None = None,
    ) -> None:
        if abstain is not None and not 0 < abstain < 1:
            raise SettingsError(f"abstain: expected a probability between 0 and 1, found {abstain}.")
        self.abstain = abstain
        self._predictor = MultiTaskPredictor(
            device=choose_device(device),
            tta=tta,
            step_size=step_size,
            skip_empty=skip_empty,
            backend=backend,
            precision=precision,
            explain=explain,
        )
        names = None if folds is None else [str(fold) for fold in folds]
        found = find_folds(Path(model_folder), names, checkpoint)
        self._predictor.load(Path(model_folder), found, checkpoint)
        if self._predictor.calibration_note:
            warnings.warn(self._predictor.calibration_note, stacklevel=2)
        self._produced_by = {**self._predictor.describe(), "checkpoint": checkpoint, "folds": found}
        self.class_names: list[str] | None = self._predictor.head_config.get("class_names")
        channels = self._predictor.dataset_json
        self.num_channels = len(channels.get("channel_names") or channels.get("modality", {}))

    def __call__(
        self,
        image: File | Sequence[File] | SimpleITK.Image | Sequence[SimpleITK.Image] | np.ndarray,
        spacing: Sequence[float] | None = None,
    ) -> Prediction:
        """Predict one case.

        Args:
            image: a file or one for each channel; a SimpleITK image or one for each channel; an array
                ``(Z, Y, X)`` or ``(C, Z, Y, X)``.
            spacing: of an array, (Z, Y, X) in mm.

        Raises:
            ImageError: the image cannot be read, is not finite, or does not have the model's channels.
        """
        began = time.perf_counter()
        predictor = self._predictor
        array, properties, reference = self._read(image, spacing)
        data = preprocess(
            array, properties, predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json,
            predictor.device,
        )  # fmt: skip
        preprocessed = time.perf_counter()
        prediction = predictor.predict_case(data)
        passed = time.perf_counter()
        segmentation = segmentation_from_logits(
            prediction.logits, properties, predictor.plans_manager, predictor.configuration_manager,
            predictor.label_manager,
        )  # fmt: skip
        evidence = None
        if prediction.evidence is not None:
            evidence = evidence_on_image_grid(prediction.evidence, properties, predictor.plans_manager)
        if reference is not None and "Reorient" in predictor.plans_manager.image_reader_writer_class.__name__:
            segmentation, reference = self._turned_back(segmentation, properties)
            if evidence is not None:
                ending = predictor.dataset_json["file_ending"]
                image_of_evidence = evidence_image(evidence, properties, predictor.plans_manager, ending)
                evidence = SimpleITK.GetArrayFromImage(image_of_evidence)
        exported = time.perf_counter()
        case_class = prediction.case_class
        report = class_file(
            case_class.probs,
            self.class_names,
            temperature=predictor.temperature,
            review_below=self.abstain,
            **case_class.describe(),
            **self._produced_by,
        )
        note_empty_map(report, prediction.evidence)
        report["target_voxels"] = int(np.isin(segmentation, predictor.target.labels).sum())
        return Prediction(
            segmentation,
            tuple(report["probs"]),
            case_class.pred,
            self.class_names[case_class.pred] if self.class_names else None,
            report,
            {"preprocess": preprocessed - began, "network": passed - preprocessed, "export": exported - passed},
            reference,
            evidence,
            report.get("review"),
        )

    def _read(
        self, image: Any, spacing: Sequence[float] | None
    ) -> tuple[np.ndarray, dict[str, Any], SimpleITK.Image | None]:
        """The image as nnU-Net's readers give it, and whose geometry the segmentation has."""
        if isinstance(image, np.ndarray):
            return (*self._from_array(image, spacing), None)
        if spacing is not None:
            raise ImageError("Predictor: expected spacing only beside an array; files and images bring their own.")
        parts = list(image) if isinstance(image, list | tuple) else [image]
        if parts and all(isinstance(part, SimpleITK.Image) for part in parts):
            for number, part in enumerate(parts[1:], start=1):
                differences = geometry_differences(image_geometry(part), image_geometry(parts[0]))
                if differences:
                    raise ImageError(
                        f"Predictor: expected channels on one grid, found channel {number} against channel 0: "
                        f"{'; '.join(differences)}. Resample them to one grid."
                    )
            array = np.stack([SimpleITK.GetArrayFromImage(part) for part in parts])
            return (*self._from_array(array, parts[0].GetSpacing()[::-1]), parts[0])
        paths = [Path(part) for part in parts]
        check_case_files(paths, self.num_channels, str(paths[0].name) if paths else "image")
        reader = self._predictor.plans_manager.image_reader_writer_class()
        array, properties = reader.read_images([str(path) for path in paths])
        return array, properties, SimpleITK.ReadImage(str(paths[0]))

    def _turned_back(self, segmentation: np.ndarray, properties: dict[str, Any]) -> tuple[np.ndarray, SimpleITK.Image]:
        """Segmentation and grid of the file, which only the reader that turned it can give."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"case{self._predictor.dataset_json['file_ending']}"
            self._predictor.plans_manager.image_reader_writer_class().write_seg(segmentation, str(path), properties)
            image = SimpleITK.ReadImage(str(path))
        return SimpleITK.GetArrayFromImage(image), image

    def _from_array(self, image: np.ndarray, spacing: Sequence[float] | None) -> tuple[np.ndarray, dict[str, Any]]:
        reader = self._predictor.plans_manager.image_reader_writer_class.__name__
        if "Reorient" in reader:
            raise ImageError(
                f"Predictor: expected image files, since this model's reader ({reader}) turns them to its own "
                "orientation; found an image in memory."
            )
        array = image[None] if image.ndim == 3 else image
        if array.ndim != 4 or len(array) != self.num_channels:
            raise ImageError(
                f"Predictor: expected an image of 3 axes for each of {self.num_channels} channels, found shape "
                f"{image.shape}."
            )
        if spacing is None or len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
            raise ImageError(f"Predictor: expected spacing (Z, Y, X) in mm beside an array, found {spacing}.")
        array = array.astype(np.float32)
        check_finite(array, "image in memory")
        return array, {"spacing": [float(s) for s in spacing]}
