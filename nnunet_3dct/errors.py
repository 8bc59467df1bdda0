"""One family of exceptions.

Every message says which case, file or variable is meant, what was expected, what was found and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class NNUNet3DCTError(Exception):
    """Base of all errors raised on purpose by this package.

    Examples:
        >>> import nnunet_3dct
        >>> try:
        ...     nnunet_3dct.Predictor(tmp / "no_model")
        ... except nnunet_3dct.NNUNet3DCTError as error:
        ...     print(type(error).__name__)
        CheckpointError
    """


class SettingsError(NNUNet3DCTError, ValueError):
    """A variable, an argument of a command or a Python call, or a table of covariates holds what cannot be used.

    Examples:
        >>> import nnunet_3dct
        >>> nnunet_3dct.write_phantom(tmp / "Dataset001_3DCT", cases=2)
        Traceback (most recent call last):
        nnunet_3dct.errors.SettingsError: cases: expected 3 or more, found 2.
        >>> issubclass(nnunet_3dct.SettingsError, ValueError)
        True
    """


class ClassLabelsError(NNUNet3DCTError):
    """``classification.json`` (or the CSV) is missing, incomplete or holds values that are not classes.

    Examples:
        >>> import nnunet_3dct
        >>> try:
        ...     nnunet_3dct.evaluate_classification(predictions, tmp / "no_classes.json")
        ... except nnunet_3dct.ClassLabelsError as error:
        ...     print("no_classes.json" in str(error))
        True
    """


class CheckpointError(NNUNet3DCTError):
    """A checkpoint is missing, unreadable or belongs to another network.

    Examples:
        >>> import nnunet_3dct
        >>> try:
        ...     nnunet_3dct.Predictor(model, checkpoint="checkpoint_lost.pth", device="cpu")
        ... except nnunet_3dct.CheckpointError as error:
        ...     print("checkpoint_lost.pth" in str(error))
        True
    """


class ImageError(NNUNet3DCTError):
    """An image or label volume is missing, truncated, empty or does not fit its case.

    Examples:
        >>> import nnunet_3dct
        >>> predictor = nnunet_3dct.Predictor(model, device="cpu", backend="torch")
        >>> try:
        ...     predictor(tmp / "lost_0000.nii.gz")
        ... except nnunet_3dct.ImageError as error:
        ...     print("lost_0000.nii.gz" in str(error))
        True
    """


class TrainingError(NNUNet3DCTError):
    """Training cannot go on, for instance because gradients stay non-finite.

    nnU-Net's commands raise it; a script that trains in its own process can tell it from a mistake in its code.

    Examples:
        >>> import nnunet_3dct
        >>> try:
        ...     raise nnunet_3dct.TrainingError("Epoch 3: the loss is NaN for case_0001.")
        ... except nnunet_3dct.NNUNet3DCTError as error:
        ...     print(error)
        Epoch 3: the loss is NaN for case_0001.
    """


class EvaluationError(NNUNet3DCTError):
    """Predictions and references cannot be compared.

    Examples:
        >>> import nnunet_3dct
        >>> (tmp / "empty").mkdir()
        >>> try:
        ...     nnunet_3dct.evaluate_segmentation(labels, tmp / "empty", dataset_json)
        ... except nnunet_3dct.EvaluationError as error:
        ...     print("empty" in str(error))
        True
    """


class OutputError(NNUNet3DCTError):
    """A result file cannot be written.

    Examples:
        >>> import nnunet_3dct
        >>> _ = (tmp / "file").write_text("in the way")
        >>> try:
        ...     nnunet_3dct.write_phantom(tmp / "file" / "Dataset001_3DCT", cases=3, val=0)
        ... except nnunet_3dct.OutputError as error:
        ...     print("Dataset001_3DCT" in str(error))
        True
    """


def listing(items: Sequence[object], limit: int = 10) -> str:
    """Join ``items`` for a message and cut the list after ``limit`` entries, saying how many are left out."""
    shown = ", ".join(str(item) for item in items[:limit])
    rest = len(items) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown
