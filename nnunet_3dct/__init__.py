"""Joint 3D segmentation and case-level classification on top of nnU-Net v2.

Everything in ``__all__`` is the Python interface. A name is loaded when it is first used, so that importing the package
is quick and brings in neither PyTorch nor NumPy.

Examples:
    >>> import nnunet_3dct
    >>> predictor = nnunet_3dct.Predictor(model, device="cpu", backend="torch")
    >>> prediction = predictor(image)
    >>> prediction.segmentation.shape
    (16, 24, 24)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_3dct.data.checks.dataset import check_dataset
    from nnunet_3dct.data.convert.convert import convert_dataset
    from nnunet_3dct.dicom.results import write_dicom_seg
    from nnunet_3dct.errors import (
        CheckpointError,
        ClassLabelsError,
        EvaluationError,
        ImageError,
        NNUNet3DCTError,
        OutputError,
        SettingsError,
        TrainingError,
    )
    from nnunet_3dct.evaluation.averaging import average_classes
    from nnunet_3dct.evaluation.calibration import calibrate
    from nnunet_3dct.evaluation.classification import evaluate_classification
    from nnunet_3dct.evaluation.comparison import compare
    from nnunet_3dct.evaluation.crossval import cross_validate
    from nnunet_3dct.evaluation.segmentation import evaluate_segmentation
    from nnunet_3dct.evaluation.selection.select import select_model
    from nnunet_3dct.inference.prediction import Prediction
    from nnunet_3dct.inference.predictor import Predictor
    from nnunet_3dct.networks.heads import ClassificationHead, register_head
    from nnunet_3dct.phantom.dataset import write_phantom
    from nnunet_3dct.report import write_report
    from nnunet_3dct.training.fitted_model import fit_head

__version__ = "0.1.0"  # the only place; the build reads it from here

__all__ = [
    "CheckpointError",
    "ClassLabelsError",
    "ClassificationHead",
    "EvaluationError",
    "ImageError",
    "NNUNet3DCTError",
    "OutputError",
    "Prediction",
    "Predictor",
    "SettingsError",
    "TrainingError",
    "__version__",
    "average_classes",
    "calibrate",
    "check_dataset",
    "compare",
    "convert_dataset",
    "cross_validate",
    "evaluate_classification",
    "evaluate_segmentation",
    "fit_head",
    "register_head",
    "select_model",
    "write_dicom_seg",
    "write_phantom",
    "write_report",
]

_HOMES = {
    "CheckpointError": "errors",
    "ClassLabelsError": "errors",
    "ClassificationHead": "networks.heads",
    "EvaluationError": "errors",
    "ImageError": "errors",
    "NNUNet3DCTError": "errors",
    "OutputError": "errors",
    "Prediction": "inference.prediction",
    "Predictor": "inference.predictor",
    "SettingsError": "errors",
    "TrainingError": "errors",
    "average_classes": "evaluation.averaging",
    "calibrate": "evaluation.calibration",
    "check_dataset": "data.checks.dataset",
    "compare": "evaluation.comparison",
    "convert_dataset": "data.convert.convert",
    "cross_validate": "evaluation.crossval",
    "evaluate_classification": "evaluation.classification",
    "evaluate_segmentation": "evaluation.segmentation",
    "register_head": "networks.heads",
    "fit_head": "training.fitted_model",
    "select_model": "evaluation.selection.select",
    "write_dicom_seg": "dicom.results",
    "write_phantom": "phantom.dataset",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
