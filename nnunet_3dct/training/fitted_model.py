"""A case head for a segmentation model that is there: stage 2 without training the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from nnunet_3dct.data.splits import read_splits
from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.atomic import read_json, write_json
from nnunet_3dct.formats.calibration import Calibration
from nnunet_3dct.formats.checkpoint import FINAL, Checkpoint, read_checkpoint
from nnunet_3dct.formats.class_labels import check_class_names, read_dataset_labels
from nnunet_3dct.formats.dataset_json import num_channels
from nnunet_3dct.formats.metrics_class import ClassificationMetrics
from nnunet_3dct.networks.foreign_encoder import ForeignEncoder, open_encoder
from nnunet_3dct.paths import PREPROCESSED, find_folds, nnunet_folder
from nnunet_3dct.runtime import Message, choose_device
from nnunet_3dct.training.case_features import CaseFeatures
from nnunet_3dct.training.fitted_calibration import calibrate_folds
from nnunet_3dct.training.fitted_files import DESCRIPTIONS, TRAINER, class_metrics_of, require_new, write_fold
from nnunet_3dct.training.fitted_fold import FittedFold, FoldFit, Task, fit_fold, parts_of, require_unseen
from nnunet_3dct.training.head_choice import Weights
from nnunet_3dct.training.preflight import read_covariates
from nnunet_3dct.upstream import PlansManager

__all__ = ["RESULT", "TRAINER", "HeadFit", "fit_head"]

RESULT = "fit_head.json"
Progress = Callable[[Iterable[str]], Iterable[str]]


class HeadFit(TypedDict):
    """Content of ``fit_head.json``.

    Attributes:
        source: folder of the segmentation model.
        encoder: file of the encoder whose features are used; None for the model's own.
        folds: fold -> what was fitted.
        out_of_fold: class metrics of the validation cases of all folds, each predicted by the fold that has not seen
            it: neither its network nor its choice nor its fit. None where no validation case has a known class.
        calibration: temperatures, see ``calibration.json``; None where there is none.
    """

    source: str
    encoder: str | None
    folds: dict[str, FoldFit]
    out_of_fold: ClassificationMetrics | None
    calibration: Calibration | None


def fit_head(
    model: Path | str,
    output: Path | str,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint_name: str = FINAL,
    encoder: Path | str | None = None,
    target_labels: tuple[int | str, ...] | None = None,
    weights: Weights = "balanced",
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    resamples: int = 2000,
    overwrite: bool = False,
    progress: Progress = iter,
    on_message: Message = lambda text: None,
) -> HeadFit:
    """Fit a case head to a trained segmentation model; its network stays as it is.

    Args:
        model: folder ``<nnUNet_results>/<dataset>/<trainer>__<plans>__<configuration>`` of stock nnU-Net or of any
            trainer with nnU-Net's own network.
        output: folder of the model that is written, beside ``model``.
        folds: to fit; None for all that are trained.
        checkpoint_name: file in each fold of ``model``.
        encoder: checkpoint of another training, nnU-Net's folder of a trained model or a ``state_dict``: its encoder,
            as it is, gives the network's features under the target that ``model`` outlines. None for the model's own.
        target_labels: voxel labels that carry the class; None for all foreground.
        weights: of the classes: ``"none"``, ``"balanced"`` or one for each class.
        device, backend, precision: as for :class:`~nnunet_3dct.Predictor`.
        resamples: of the bootstrap of the out-of-fold metrics.
        overwrite: replace folds that ``output`` already holds.
        progress: wraps the cases of a fold, for a bar.
        on_message: told of what takes long, and of an encoder what of it is used.

    Returns:
        The content of ``fit_head.json``.

    Raises:
        SettingsError: a fold is not in the splits, there are too few cases of known class in which the network finds
            the target, or ``output`` holds such folds already.
        CheckpointError: a checkpoint is missing or of another network, or the encoder does not fit.
        ClassLabelsError: the class labels cannot be used.
        OutputError: a file cannot be written.

    Examples:
        >>> import nnunet_3dct
        >>> result = nnunet_3dct.fit_head(model, tmp / "fitted", backend="torch", resamples=0)
        >>> result["folds"]["0"]["training_cases"]
        [2, 2, 2]
    """
    model, output = Path(model), Path(output)
    dataset = model.resolve().parent.name
    numbers = list(folds) if folds is not None else find_folds(model, None, checkpoint_name)
    require_new(output, numbers, overwrite)
    plans, dataset_json = (read_json(model / name, "Model folder: its", CheckpointError) for name in DESCRIPTIONS[:2])
    labels = read_dataset_labels(dataset)
    names = check_class_names(dataset_json.get("class_names"), labels.num_classes, "dataset.json")
    task = Task(labels, read_covariates(dataset, labels), weights)
    parts = parts_of(read_splits(dataset), numbers, labels)
    every = sorted({case for part in parts for case in (*part.training, *part.validation)})
    foreign: ForeignEncoder | None = None
    fitted: list[FittedFold] = []
    for number, part in zip(numbers, parts, strict=True):
        checkpoint = read_checkpoint(model / f"fold_{number}" / checkpoint_name)
        require_unseen(checkpoint, part, number)
        if encoder is not None and foreign is None:
            foreign = _open(encoder, checkpoint, plans, dataset_json, dataset, on_message)
        maker = CaseFeatures(
            checkpoint,
            plans,
            dataset_json,
            target_labels,
            labels.num_classes,
            choose_device(device),
            encoder=foreign,
            backend=backend,
            precision=precision,
            on_message=on_message,
        )
        cases = every if len(numbers) > 1 else sorted({*part.training, *part.validation})
        rows = dict(maker.of_cases(nnunet_folder(PREPROCESSED) / dataset, progress(cases)))
        fitted.append(fit_fold(number, part, checkpoint, maker, rows, task))
    for fold in fitted:
        write_fold(fold, model, output, names, dataset_json["file_ending"], labels)
    probabilities = {case: row for fold in fitted for case, row in fold.held_out().items()}
    result: HeadFit = {
        "source": str(model),
        "encoder": None if foreign is None else foreign.source,
        "folds": {str(fold.number): fold.fit for fold in fitted},
        "out_of_fold": class_metrics_of(probabilities, labels, names, resamples),
        "calibration": calibrate_folds(fitted, probabilities, task, output),
    }
    write_json(result, output / RESULT)
    return result


def _open(
    path: Path | str,
    checkpoint: Checkpoint,
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    dataset: str,
    on_message: Message,
) -> ForeignEncoder:
    """The encoder for the windows of a model, with a word on what it is."""
    own = PlansManager(plans).get_configuration(checkpoint.configuration)
    encoder = open_encoder(path, own, num_channels(dataset_json), own.patch_size)
    for note in encoder.notes:
        on_message(note)
    if encoder.dataset == dataset:
        on_message(
            f"WARNING: {encoder.source} was trained on {dataset} too. If it has seen validation cases of these folds, "
            "the out-of-fold estimate is too good."
        )
    return encoder
