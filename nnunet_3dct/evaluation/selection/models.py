"""Trained models to compare: those named, or all of a dataset that predict a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_3dct.errors import CheckpointError, EvaluationError, NNUNet3DCTError, SettingsError, listing
from nnunet_3dct.evaluation.trained_folds import TrainedFolds, find_dataset, find_trained_folds
from nnunet_3dct.formats.class_files import CLASS_FILES, classified_in
from nnunet_3dct.paths import MODEL_FOLDERS, RESULTS, SEPARATOR, dataset_name, nnunet_folder, parse_model_name

NO_CLASSES = (
    f"no fold_X/validation/{CLASS_FILES}: a model without a class head, or its validation has not run "
    "(nnUNetv2_train ... --val)"
)


@dataclass
class TrainedModels:
    """Models with their out-of-fold predictions.

    Attributes:
        models: in the order of comparison.
        left_out: model -> why it is not compared.
        failed: those of ``left_out`` that hold class predictions which cannot be used.
    """

    models: list[TrainedFolds] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def read_models(
    dataset: str | int | None,
    trainers: Sequence[str] | None,
    plans: Sequence[str] | None,
    configurations: Sequence[str] | None,
    folders: Sequence[Path],
    folds: Sequence[int] | None,
) -> TrainedModels:
    """Read the out-of-fold predictions of all models that take part.

    A model that was found by itself and cannot be used is left out and named; one that was named is an error.

    Args:
        dataset: name or number; None for ``folders`` alone.
        trainers, plans, configurations: which models of the dataset; None for all.
        folders: more models, given directly; they come last.
        folds: numbers; None for all that each model has.

    Raises:
        SettingsError: neither dataset nor folders are given, or the dataset is not known.
        CheckpointError: a named model does not exist.
        EvaluationError: a named model cannot be used, or no model is left.
        ClassLabelsError: the class labels cannot be used.
    """
    if dataset is None and not folders:
        raise SettingsError("dataset or models: expected one of them or both, found neither.")
    read = TrainedModels()
    given = [Path(folder).resolve() for folder in folders]
    listed = [] if dataset is None else _folders_of(dataset, trainers, plans, configurations)
    base = None if dataset is None else nnunet_folder(RESULTS) / dataset_name(dataset)
    usable = []
    for folder in listed:
        if folder not in given:
            if _has_classes(folder):
                usable.append(folder)
            else:
                read.left_out[folder.name] = NO_CLASSES
    if listed and usable:
        find_dataset(usable[0])  # what is wrong with labels or splits concerns all models
    for trainer in trainers or ():
        if not any(parse_model_name(folder).trainer == trainer for folder in [*usable, *given]):
            raise EvaluationError(f"Trainer {trainer}: expected class predictions of a model, found {NO_CLASSES}.")
    for folder in usable:
        _read(read, folder, folds, must_work=trainers is not None)
    for folder in dict.fromkeys(given):
        parse_model_name(folder)
        _read(read, folder, folds, must_work=True)
    if not read.models:
        reasons = listing([f"{name} ({reason})" for name, reason in read.left_out.items()])
        raise EvaluationError(
            f"{base}: expected a trained model with class predictions, found {reasons or 'no model'}. Train stage 2 "
            "(nnUNetv2_train ... -tr nnUNetTrainer_CLSHeadSumFT) to its end first."
        )
    return read


def _read(read: TrainedModels, folder: Path, folds: Sequence[int] | None, *, must_work: bool) -> None:
    try:
        read.models.append(find_trained_folds(folder, folds))
    except NNUNet3DCTError as error:
        if must_work:
            raise
        read.left_out[folder.name] = str(error)
        read.failed.append(folder.name)


def _has_classes(folder: Path) -> bool:
    return any(classified_in(validation) for validation in folder.glob("fold_[0-9]*/validation"))


def _folders_of(
    dataset: str | int,
    trainers: Sequence[str] | None,
    plans: Sequence[str] | None,
    configurations: Sequence[str] | None,
) -> list[Path]:
    """Model folders of a dataset in the order of the trainers given, else by name."""
    name = dataset_name(dataset)
    base = nnunet_folder(RESULTS) / name
    present = {
        path.resolve(): parse_model_name(path)
        for path in sorted(base.glob(MODEL_FOLDERS))
        if path.is_dir() and path.name.count(SEPARATOR) == 2
    }
    wanted = (("trainer", trainers), ("plans", plans), ("configuration", configurations))
    for part, values in wanted:
        known = list(dict.fromkeys(getattr(model, part) for model in present.values()))
        missing = [value for value in values or () if value not in known]
        if missing:
            raise CheckpointError(
                f"{base}: expected a model of the {part} {listing(missing)}, found {listing(known) or 'no model'}. "
                "Train it first, or check the name."
            )
    kept = [
        path
        for path, model in present.items()
        if all(values is None or getattr(model, part) in values for part, values in wanted)
    ]
    if not kept:
        shown = listing([path.name for path in present]) or "none"
        raise CheckpointError(f"{base}: expected a model of these trainers, plans and configurations, found {shown}.")
    order = list(trainers or ())
    return sorted(kept, key=lambda path: order.index(present[path].trainer) if order else 0)
