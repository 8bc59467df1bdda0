"""What a fitted head leaves in the folder of its model: the files of a training."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.evaluation.classification import evaluate_predictions
from nnunet_3dct.formats.atomic import write_json
from nnunet_3dct.formats.checkpoint import FINAL, compose_checkpoint, fingerprint, write_checkpoint
from nnunet_3dct.formats.class_files import CLASS_FILES, class_file, write_class_file
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.class_tables import write_class_tables
from nnunet_3dct.formats.metrics_class import CLASSIFICATION_METRICS, ClassificationMetrics
from nnunet_3dct.formats.run_record import RunRecord, StartedFrom, TrainerState
from nnunet_3dct.inference.aggregation import CaseClass
from nnunet_3dct.training.case_features import STEP_SIZE
from nnunet_3dct.training.fitted_fold import FittedFold
from nnunet_3dct.training.run_state import describe_head

TRAINER = "nnUNetTrainer_CLSHeadLesion"  # whose checkpoints these are
DESCRIPTIONS = ("plans.json", "dataset.json", "dataset_fingerprint.json")
RESAMPLES = 2000


def require_new(output: Path, folds: Sequence[int | str], overwrite: bool) -> None:
    """Raise SettingsError if the folder holds one of the folds, unless they are to be replaced."""
    there = [str(fold) for fold in folds if (output / f"fold_{fold}" / FINAL).is_file()]
    if there and not overwrite:
        raise SettingsError(
            f"{output}: expected no fold {listing(there)}, found one that was trained or fitted before. Choose another "
            "output, or overwrite it."
        )


def write_fold(
    fold: FittedFold, model: Path, output: Path, names: list[str] | None, file_ending: str, labels: ClassLabels
) -> None:
    """Checkpoint and validation of one fold, as a training leaves them.

    Args:
        fold: fitted.
        model: folder of the segmentation model, whose validation goes along.
        output: folder of the new model.
        names: of the classes.
        file_ending: of the images.
        labels: class of each case.

    Raises:
        OutputError: a file cannot be written.
    """
    folder, source = output / f"fold_{fold.number}", model / f"fold_{fold.number}" / "validation"
    (folder / "validation").mkdir(parents=True, exist_ok=True)
    for name in DESCRIPTIONS:
        if (model / name).is_file():
            shutil.copyfile(model / name, output / name)
    write_checkpoint(_checkpoint(fold, names), folder / FINAL)
    for path in sorted(source.glob("*")) if source.is_dir() else []:
        if path.name.endswith((file_ending, ".npz", ".pkl")) or path.name == "summary.json":
            shutil.copyfile(path, folder / "validation" / path.name)
    probabilities = fold.held_out()
    weights = {str(fold.number): fingerprint(fold.head.state_dict())}
    for case, row in probabilities.items():
        about: dict[str, Any] = {"trainer": TRAINER, "folds": [fold.number], "head_weights": weights}
        write_class_file(
            class_file(row.tolist(), names, **about, mirror_axes=[], step_size=STEP_SIZE, whole_case=True),
            folder / "validation",
            case,
        )
    if probabilities:
        classes = {case: CaseClass(tuple(row.tolist()), 0, 1, 1, True) for case, row in probabilities.items()}
        write_class_tables(folder / "validation", classes, file_ending)
        metrics = class_metrics_of(probabilities, labels, names, RESAMPLES)
        if metrics is not None:
            write_json({**metrics, "source": CLASS_FILES}, folder / "validation" / CLASSIFICATION_METRICS)


def class_metrics_of(
    probabilities: Mapping[str, np.ndarray], labels: ClassLabels, names: list[str] | None, resamples: int
) -> ClassificationMetrics | None:
    """Metrics of class probabilities ``(n,)`` of cases; None where no case has a known class."""
    if all(labels.by_case[case] == UNKNOWN for case in probabilities):
        return None
    predictions = {
        case: ClassPrediction(int(row.argmax()), row, len(row)) for case, row in sorted(probabilities.items())
    }
    return evaluate_predictions(predictions, labels, names, resamples=resamples, seed=0)


def _checkpoint(fold: FittedFold, names: list[str] | None) -> dict[str, Any]:
    source = fold.checkpoint
    state = TrainerState(
        optimizer_state={},
        grad_scaler_state=None,
        logging=source.get("logging", {}),
        _best_ema=source.get("_best_ema"),
        current_epoch=source.get("current_epoch", 0),
        init_args=source["init_args"],
        trainer_name=TRAINER,
        inference_allowed_mirroring_axes=source.get("inference_allowed_mirroring_axes"),
    )
    record = RunRecord(
        mt_num_classes=fold.head.num_classes,
        mt_loss_weight=0.0,
        mt_settings={},
        mt_labels=fold.labels.by_part(),
        mt_started_from=StartedFrom(path=source.source, fold=source.fold),
        mt_best_cls=None,
    )
    config = describe_head(fold.head, names, fold.target)
    return compose_checkpoint(source.unet_weights, fold.head.state_dict(), config, state, record, None)
