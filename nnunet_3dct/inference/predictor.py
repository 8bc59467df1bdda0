"""Prediction from Python: load once, call on files, SimpleITK images, arrays or folders."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.class_files import ClassFile, Reason
from nnunet_3dct.formats.clinical_columns import Kind
from nnunet_3dct.formats.geometry import Geometry, image_geometry
from nnunet_3dct.inference import case as case_path
from nnunet_3dct.inference.case_input import CaseInput, from_array, from_files, from_images
from nnunet_3dct.inference.covariates import check_covariates
from nnunet_3dct.inference.ensemble import say_nothing
from nnunet_3dct.inference.explanation import evidence_image, evidence_on_image_grid
from nnunet_3dct.inference.folder import FolderResult, predict_folder
from nnunet_3dct.inference.images import is_dicom, one_dicom_case, read_dicom
from nnunet_3dct.inference.model import TrainedModel
from nnunet_3dct.inference.options import FolderOptions, PredictionOptions
from nnunet_3dct.paths import find_folds
from nnunet_3dct.runtime import Message

File = str | PathLike[str]


@dataclass(frozen=True)
class Prediction:
    """Both answers for one case.

    Attributes:
        segmentation: labels ``(Z, Y, X)`` on the grid of the input.
        probs: class probabilities, sum 1; calibrated if the model is.
        pred: class with the highest probability.
        class_name: its name, if the model knows names.
        class_file: what ``nnUNet3DCT_predict`` writes into ``<case>_classification.json``.
        seconds: spent in ``preprocess``, ``network`` and ``export``.
        geometry: grid of the input; None for an array.
        evidence: where it speaks for the class, ``(Z, Y, X)``, 0 to 1, with ``explain=True``.
        review: whether the highest probability is below the threshold ``abstain`` or the case is unlike the training
            cases; None without a threshold.

    Examples:
        >>> from nnunet_3dct import Predictor
        >>> found = Predictor(model, device="cpu", tta="none")(image)
        >>> found.class_file["target_voxels"] >= 0, sorted(found.seconds)
        (True, ['export', 'network', 'preprocess'])
    """

    segmentation: np.ndarray
    probs: tuple[float, ...]
    pred: int
    class_name: str | None
    class_file: ClassFile
    seconds: dict[str, float]
    geometry: Geometry | None = None
    evidence: np.ndarray | None = None
    review: bool | None = None

    @property
    def without_basis(self) -> str | None:
        """Why the class rests on nothing, such as an image without content; None if it does not."""
        return self.class_file.get("without_basis")

    @property
    def unusual(self) -> tuple[str, ...]:
        """In which way the case is unlike the training cases; empty where nothing is unusual."""
        return tuple(self.class_file.get("unusual", ()))

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Which features spoke for and against the class, the weightiest first; empty for heads that do not tell."""
        return tuple(self.class_file.get("reasons", ()))

    def image(self) -> SimpleITK.Image:
        """The segmentation with the geometry of the input image.

        Raises:
            ImageError: the input was an array, which has no origin and direction, or its axes are sheared.
        """
        if self.geometry is None:
            raise ImageError("Prediction.image: expected a file or a SimpleITK image as input, found an array.")
        axes = len(self.geometry.size)
        direction = np.reshape(self.geometry.direction, (axes, axes))
        if not np.allclose(direction.T @ direction, np.eye(axes), atol=1e-3):
            raise ImageError(
                "Prediction.image: expected axes at right angles, which SimpleITK needs, found sheared ones. Use "
                "Prediction.segmentation, or predict_folder, which writes with the model's own reader."
            )
        image = SimpleITK.GetImageFromArray(self.segmentation[0] if axes == 2 else self.segmentation)
        image.SetSpacing(self.geometry.spacing)
        image.SetOrigin(self.geometry.origin)
        image.SetDirection(self.geometry.direction)
        return image


class Predictor:
    """A trained model in memory.

    Args:
        model_folder: ``<nnUNet_results>/<dataset>/<trainer>__<plans>__<configuration>``.
        folds: to average; None for all that have the checkpoint.
        checkpoint: name inside each fold's folder.
        device: ``auto`` (CUDA, else the CPU), ``cuda``, ``cuda:1``, ``cpu`` or ``mps``.
        tta: mirroring, ``none``, ``pair``, ``flips`` or ``full``.
        step_size: share of the patch between windows, above 0 to 1.
        skip_empty: leave out windows that show nothing but air.
        backend, precision: see :func:`~nnunet_3dct.inference.backends.make_backend`.
        explain: also say where the evidence for the predicted class lies.
        abstain: mark cases whose highest class probability is below for review.
        sum_on_device: whether a GPU keeps the sums of logits; else the CPU does.
        on_message: told of what takes long or goes another way; by default nobody is.

    Attributes:
        class_names: of the classes 0, 1, ..., None if the model names none.
        num_classes, num_channels: of the model.
        covariates: that the model was trained with -> ``number`` or ``category``; None for none.
        calibration_note: why the model's calibration is not applied, None if there is nothing to say.

    Raises:
        CheckpointError: no such model, or its files cannot be used.
        SettingsError: device, runtime or precision are not there, or an argument cannot be used; before anything is
            loaded where that can be told.

    Examples:
        >>> from nnunet_3dct import Predictor
        >>> predictor = Predictor(model, device="cpu", tta="none")
        >>> found = predictor(image)
        >>> found.segmentation.ndim, round(sum(found.probs), 6), max(found.probs) == found.probs[found.pred]
        (3, 1.0, True)
        >>> import SimpleITK
        >>> SimpleITK.WriteImage(found.image(), str(tmp / "labels.nii.gz"))
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
        *,
        sum_on_device: bool = True,
        on_message: Message | None = None,
    ) -> None:
        options = PredictionOptions(
            device, tta, step_size, skip_empty, backend, precision, explain, abstain, sum_on_device
        )
        wanted = None if folds is None else [str(fold) for fold in folds]
        found = find_folds(Path(model_folder), wanted, checkpoint)
        self._on_message = on_message or say_nothing
        self._model = TrainedModel(Path(model_folder), found, checkpoint, options, self._on_message)
        self.class_names: list[str] | None = self._model.class_names
        self.num_classes: int = self._model.head_config["num_classes"]
        self.num_channels = self._model.num_channels
        self.covariates: dict[str, Kind] | None = self._model.covariates.kinds if self._model.covariates else None
        self.calibration_note = self._model.calibration_note
        if self.calibration_note and on_message is None:
            warnings.warn(self.calibration_note, stacklevel=2)

    def __str__(self) -> str:
        """What runs the network, such as ``openvino on cpu in bf16``."""
        return str(self._model.backends[0])

    def __call__(
        self,
        image: File | Sequence[File] | SimpleITK.Image | Sequence[SimpleITK.Image] | np.ndarray,
        spacing: Sequence[float] | None = None,
        covariates: Mapping[str, float | str | None] | None = None,
    ) -> Prediction:
        """Predict one case.

        Args:
            image: a file or one for each channel; a folder or ZIP archive that holds one DICOM series; a SimpleITK
                image or one for each channel; an array ``(Z, Y, X)`` or ``(C, Z, Y, X)``.
            spacing: of an array, (Z, Y, X) in mm.
            covariates: such as ``{"age": 67, "sex": "F"}``, for a model that was trained with some; None for what is
                missing.

        Raises:
            SettingsError: the covariates are not those that the model was trained with.
            ImageError: the image cannot be read, is not finite, or does not have the model's channels.
        """
        model, times = self._model, [time.perf_counter()]
        accepted = check_covariates(model.covariates, covariates)
        given = self._read(image, spacing)
        prepared = case_path.prepare(model, given, accepted)
        times.append(time.perf_counter())
        answer = case_path.predict(model, prepared)
        times.append(time.perf_counter())
        segmentation = case_path.segment(model, answer)
        content = case_path.note_target(model, answer, segmentation)
        evidence, geometry = None, given.geometry
        if answer.evidence is not None:
            evidence = evidence_on_image_grid(answer.evidence, given.properties, model.plans_manager)
        if geometry is not None and "Reorient" in model.plans_manager.image_reader_writer_class.__name__:
            segmentation, geometry = self._turned_back(segmentation, given)
            if evidence is not None:
                ending = model.dataset_json["file_ending"]
                turned = evidence_image(evidence, given.properties, model.plans_manager, ending)
                evidence = SimpleITK.GetArrayFromImage(turned)
        times.append(time.perf_counter())
        return Prediction(
            segmentation,
            tuple(content["probs"]),
            content["pred"],
            self.class_names[content["pred"]] if self.class_names else None,
            content,
            dict(zip(("preprocess", "network", "export"), np.diff(times).tolist(), strict=True)),
            geometry,
            evidence,
            content.get("review"),
        )

    def predict_folder(
        self,
        images: File,
        output: File,
        *,
        class_folder: File | None = None,
        save_probabilities: bool = False,
        continue_prediction: bool = False,
        num_preprocessing_threads: int = 3,
        num_export_threads: int = 3,
        part_id: int = 0,
        num_parts: int = 1,
        verbose: bool = False,
        clinical: File | None = None,
        dicom_seg: bool = False,
        dicom_sr: bool = False,
        rtstruct: bool = False,
        progress: Callable[[int, int], None] | None = None,
        arguments: dict[str, object] | None = None,
    ) -> FolderResult:
        """Predict every case of a folder; a case that fails is noted and the others go on.

        Args:
            images: files named ``<case>_0000<ending>``, with the ending of the model's training data; or a folder,
                ZIP archive or file of DICOM, each series of images a case.
            output: for segmentations, tables and the manifest; made if it does not exist.
            class_folder: for class files and tables; by default ``output``.
            save_probabilities: also write stock's ``<case>.npz`` and ``<case>.pkl``.
            continue_prediction: keep cases whose files are whole and of the same model and settings.
            num_preprocessing_threads, num_export_threads: on either side of the network.
            part_id, num_parts: which share of the cases this is, from 0, of how many calls on the folder.
            verbose: tell ``on_message`` how each case went, and where the errors of those that failed came from.
            clinical: table of the cases' covariates (``Names,age,sex``), for a model that was trained with some.
            dicom_seg, dicom_sr, rtstruct: also write ``<case>_seg.dcm``, ``<case>_sr.dcm`` (a report after TID 1500),
                ``<case>_rtstruct.dcm``, which refer to the DICOM series.
            progress: called with the number of cases that are done and of all.
            arguments: noted in the manifest as they are.

        Raises:
            ImageError: the folder is missing, holds no images, or the same image in two formats.
            SettingsError: an argument is out of range; DICOM results are asked for and the images are no DICOM; the
                model has covariates and there is no table of them or the other way round, or the table cannot be used.
            OutputError: the manifest or a table cannot be written.

        Examples:
            >>> from nnunet_3dct import Predictor
            >>> result = Predictor(model, device="cpu", tta="none").predict_folder(images, tmp / "predictions")
            >>> len(result.predicted) > 0, result.failed, result.manifest.name
            (True, {}, 'prediction_manifest.json')
        """
        options = FolderOptions(
            save_probabilities, continue_prediction, num_preprocessing_threads, num_export_threads, part_id,
            num_parts, verbose, None if clinical is None else Path(clinical), dicom_seg, dicom_sr, rtstruct,
        )  # fmt: skip
        return predict_folder(
            self._model, Path(images), Path(output), Path(class_folder or output), options, progress,
            self._on_message, arguments or {},
        )  # fmt: skip

    def _read(
        self,
        image: File | Sequence[File] | SimpleITK.Image | Sequence[SimpleITK.Image] | np.ndarray,
        spacing: Sequence[float] | None,
    ) -> CaseInput:
        if isinstance(image, np.ndarray):
            return from_array(image, spacing, self._model)
        if spacing is not None:
            raise ImageError("Predictor: expected spacing only beside an array; files and images bring their own.")
        parts: list[Any] = list(image) if isinstance(image, list | tuple) else [image]
        if parts and all(isinstance(part, SimpleITK.Image) for part in parts):
            return from_images(parts, self._model)
        if not parts:
            raise ImageError("Predictor: expected an image, found an empty list.")
        paths = [Path(part) for part in parts]
        if len(paths) == 1 and is_dicom(paths[0], str(self._model.dataset_json["file_ending"])):
            return read_dicom(one_dicom_case(paths[0], self._model), self._model, with_geometry=True)[0]
        return from_files(paths, self._model, paths[0].name, with_geometry=True)

    def _turned_back(self, segmentation: np.ndarray, given: CaseInput) -> tuple[np.ndarray, Geometry]:
        """Segmentation and grid of the file, which only the reader that turned it can give."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"case{self._model.dataset_json['file_ending']}"
            self._model.plans_manager.image_reader_writer_class().write_seg(segmentation, str(path), given.properties)
            image = SimpleITK.ReadImage(str(path))
        return SimpleITK.GetArrayFromImage(image), image_geometry(image)
