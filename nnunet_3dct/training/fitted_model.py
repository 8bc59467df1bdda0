"""A case head for a segmentation model that is there: stage 2 without training the network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from typing_extensions import TypedDict

from nnunet_3dct.data.splits import Splits, read_splits
from nnunet_3dct.errors import CheckpointError, ClassLabelsError, SettingsError, listing
from nnunet_3dct.evaluation.calibration import fit_calibration
from nnunet_3dct.evaluation.classification import evaluate_predictions
from nnunet_3dct.formats.atomic import read_json, write_json
from nnunet_3dct.formats.calibration import Calibration, remove_calibration, write_calibration
from nnunet_3dct.formats.checkpoint import (
    FINAL,
    Checkpoint,
    compose_checkpoint,
    fingerprint,
    read_checkpoint,
    write_checkpoint,
)
from nnunet_3dct.formats.class_files import class_file, write_class_file
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels, check_class_names, read_dataset_labels
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.class_tables import write_class_tables
from nnunet_3dct.formats.clinical import ClinicalTable
from nnunet_3dct.formats.metrics_class import CLASSIFICATION_METRICS, ClassificationMetrics
from nnunet_3dct.formats.run_record import RunRecord, StartedFrom, TrainerState
from nnunet_3dct.inference.aggregation import CaseClass
from nnunet_3dct.networks.heads.case import CaseHead
from nnunet_3dct.paths import PREPROCESSED, find_folds, nnunet_folder
from nnunet_3dct.runtime import Message, choose_device
from nnunet_3dct.training.case_features import STEP_SIZE, CaseFeatures
from nnunet_3dct.training.class_data import FoldLabels
from nnunet_3dct.training.fit_head import Columns, KnownCases, case_table, fitted_head, with_covariates
from nnunet_3dct.training.head_choice import Choice, Weights, choose
from nnunet_3dct.training.preflight import read_covariates
from nnunet_3dct.training.run_state import describe_head

TRAINER = "nnUNetTrainer_CLSHeadLesion"  # whose checkpoints these are
RESULT = "fit_head.json"
DESCRIPTIONS = ("plans.json", "dataset.json", "dataset_fingerprint.json")
Progress = Callable[[Iterable[str]], Iterable[str]]


class FoldFit(TypedDict):
    """Content of ``fit_head.json`` for one fold.

    Attributes:
        training_cases: in which the network finds the target, of each class.
        without_target: training cases of known class in which it does not; they are not used.
        chosen: what is averaged, the best first.
        log_losses: of all that there was to choose from, cross-validated among the training cases.
    """

    training_cases: list[int]
    without_target: list[str]
    chosen: list[str]
    log_losses: dict[str, float]


class HeadFit(TypedDict):
    """Content of ``fit_head.json``.

    Attributes:
        source: folder of the segmentation model.
        folds: fold -> what was fitted.
        out_of_fold: class metrics of the validation cases of all folds, each predicted by the fold that has not seen
            it: neither its network nor its choice nor its fit. None where no validation case has a known class.
        calibration: temperatures, see ``calibration.json``; None where there is none.
    """

    source: str
    folds: dict[str, FoldFit]
    out_of_fold: ClassificationMetrics | None
    calibration: Calibration | None


@dataclass
class _Fold:
    """One fold on its way."""

    number: int | str
    labels: FoldLabels
    checkpoint: Checkpoint
    target: Any
    head: CaseHead
    features: Columns
    choice: Choice
    fit: FoldFit


def fit_head(
    model: Path | str,
    output: Path | str,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint_name: str = FINAL,
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
        target_labels: voxel labels that carry the class; None for all foreground.
        weights: of the classes: ``"none"``, ``"balanced"`` or one for each class.
        device, backend, precision: as for :class:`~nnunet_3dct.Predictor`.
        resamples: of the bootstrap of the out-of-fold metrics.
        overwrite: replace folds that ``output`` already holds.
        progress: wraps the cases of a fold, for a bar.
        on_message: told of what takes long.

    Returns:
        The content of ``fit_head.json``.

    Raises:
        SettingsError: a fold is not in the splits, there are too few cases of known class in which the network finds
            the target, or ``output`` holds such folds already.
        CheckpointError: a checkpoint is missing or of another network.
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
    _require_new(output, numbers, overwrite)
    plans, dataset_json = (read_json(model / name, "Model folder: its", CheckpointError) for name in DESCRIPTIONS[:2])
    labels = read_dataset_labels(dataset)
    names = check_class_names(dataset_json.get("class_names"), labels.num_classes, "dataset.json")
    clinical = read_covariates(dataset, labels)
    parts = _parts(read_splits(dataset), numbers, labels)
    every = sorted({case for part in parts for case in (*part.training, *part.validation)})
    fitted = []
    for number, part in zip(numbers, parts, strict=True):
        checkpoint = read_checkpoint(model / f"fold_{number}" / checkpoint_name)
        _require_unseen(checkpoint, part, number)
        maker = CaseFeatures(
            checkpoint,
            plans,
            dataset_json,
            target_labels,
            labels.num_classes,
            choose_device(device),
            backend=backend,
            precision=precision,
            on_message=on_message,
        )
        cases = every if len(numbers) > 1 else sorted({*part.training, *part.validation})
        rows = dict(maker.of_cases(nnunet_folder(PREPROCESSED) / dataset, progress(cases)))
        fitted.append(_fit(number, part, checkpoint, maker, rows, labels, clinical, weights))
    for fold in fitted:
        _write_fold(fold, model, output, names, dataset_json["file_ending"], labels)
    probabilities = {case: row for fold in fitted for case, row in _held_out(fold).items()}
    result: HeadFit = {
        "source": str(model),
        "folds": {str(fold.number): fold.fit for fold in fitted},
        "out_of_fold": _metrics(probabilities, labels, names, resamples),
        "calibration": _calibrate(fitted, probabilities, labels, weights, output),
    }
    write_json(result, output / RESULT)
    return result


def _require_new(output: Path, folds: Sequence[int | str], overwrite: bool) -> None:
    there = [str(fold) for fold in folds if (output / f"fold_{fold}" / FINAL).is_file()]
    if there and not overwrite:
        raise SettingsError(
            f"{output}: expected no fold {listing(there)}, found one that was trained or fitted before. Choose another "
            "output, or overwrite it."
        )


def _parts(splits: Splits, folds: Sequence[int | str], labels: ClassLabels) -> list[FoldLabels]:
    parts = []
    for fold in folds:
        if fold == "all":
            cases = sorted({case for split in splits for case in (*split["train"], *split["val"])})
            split = {"train": cases, "val": []}
        elif int(fold) < len(splits):
            split = splits[int(fold)]
        else:
            raise SettingsError(f"Fold {fold}: expected one from 0 to {len(splits) - 1} of splits_final.json.")
        without = [case for case in (*split["train"], *split["val"]) if case not in labels.by_case]
        if without:
            raise ClassLabelsError(
                f"{labels.source}: expected a class for every case of fold {fold}, found none for {listing(without)}. "
                "Add them, with -1 where the class is not known."
            )
        parts.append(FoldLabels.of(split["train"], split["val"], labels.by_case))
    return parts


def _require_unseen(checkpoint: Checkpoint, part: FoldLabels, fold: int | str) -> None:
    """Checkpoints of this project note what they were trained on."""
    seen = sorted(set(checkpoint.labels.get("training", {})).intersection(part.validation))
    if seen:
        raise SettingsError(
            f"Fold {fold}: expected validation cases that the network has not seen, found {listing(seen)} among those "
            "it was trained on. The splits changed since; restore them or train again."
        )


def _fit(
    number: int | str,
    part: FoldLabels,
    checkpoint: Checkpoint,
    maker: CaseFeatures,
    rows: Columns,
    labels: ClassLabels,
    clinical: ClinicalTable | None,
    weights: Weights,
) -> _Fold:
    known = _known(part.training, labels, tuple(part.validation), clinical)
    head, features = with_covariates(maker.head, rows, known)
    table = case_table(features, known, head)
    counts = np.bincount(table.classes, minlength=head.num_classes).tolist()
    if sum(count > 1 for count in counts) < 2:
        raise SettingsError(
            f"Fold {number}: expected two training cases of two classes in which the network finds the target (labels "
            f"{listing(maker.target.labels)}), found {counts} in each class of {len(known.classes)} cases with a known "
            "class. Train the segmentation for longer, check the target labels, or add cases."
        )
    choice = choose(table, head.layout, head.num_classes, weights=weights)
    unseen = np.array([features[case] for case in known.unseen]).reshape(-1, table.columns.shape[1])
    fit: FoldFit = {
        "training_cases": counts,
        "without_target": sorted(set(known.classes) - set(table.cases)),
        "chosen": [str(candidate) for candidate in choice.candidates],
        "log_losses": dict(choice.log_losses),
    }
    head = fitted_head(head, choice, table, unseen)
    return _Fold(number, part, checkpoint, maker.target, head, features, choice, fit)


def _known(
    classes: Mapping[str, int], labels: ClassLabels, unseen: tuple[str, ...], clinical: ClinicalTable | None
) -> KnownCases:
    return KnownCases({c: k for c, k in classes.items() if k != UNKNOWN}, labels.groups, unseen, clinical)


def _probabilities(head: CaseHead, rows: Sequence[np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        weight = head.classifier.weight
        logits = head.classify_case(torch.from_numpy(np.stack(rows)).to(weight.device, weight.dtype))
    return logits.double().softmax(1).cpu().numpy()


def _held_out(fold: _Fold) -> dict[str, np.ndarray]:
    cases = list(fold.labels.validation)
    if not cases:
        return {}
    return dict(zip(cases, _probabilities(fold.head, [fold.features[case] for case in cases]), strict=True))


def _write_fold(
    fold: _Fold, model: Path, output: Path, names: list[str] | None, file_ending: str, labels: ClassLabels
) -> None:
    """Checkpoint and validation of one fold, as a training leaves them."""
    folder, source = output / f"fold_{fold.number}", model / f"fold_{fold.number}"
    (folder / "validation").mkdir(parents=True, exist_ok=True)
    for name in DESCRIPTIONS:
        if (model / name).is_file():
            shutil.copyfile(model / name, output / name)
    axes = fold.checkpoint.get("inference_allowed_mirroring_axes")
    state = TrainerState(
        optimizer_state={},
        grad_scaler_state=None,
        logging=fold.checkpoint.get("logging", {}),
        _best_ema=fold.checkpoint.get("_best_ema"),
        current_epoch=fold.checkpoint.get("current_epoch", 0),
        init_args=fold.checkpoint["init_args"],
        trainer_name=TRAINER,
        inference_allowed_mirroring_axes=axes,
    )
    record = RunRecord(
        mt_num_classes=fold.head.num_classes,
        mt_loss_weight=0.0,
        mt_settings={},
        mt_labels=fold.labels.by_part(),
        mt_started_from=StartedFrom(path=fold.checkpoint.source, fold=fold.checkpoint.fold),
        mt_best_cls=None,
    )
    config = describe_head(fold.head, names, fold.target)
    content = compose_checkpoint(fold.checkpoint.unet_weights, fold.head.state_dict(), config, state, record, None)
    write_checkpoint(content, folder / FINAL)
    for path in sorted((source / "validation").glob("*")) if (source / "validation").is_dir() else []:
        if path.name.endswith((file_ending, ".npz", ".pkl")) or path.name == "summary.json":
            shutil.copyfile(path, folder / "validation" / path.name)
    probabilities = _held_out(fold)
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
        metrics = _metrics(probabilities, labels, names, 2000)
        if metrics is not None:
            write_json({**metrics, "source": "*_classification.json"}, folder / "validation" / CLASSIFICATION_METRICS)


def _metrics(
    probabilities: Mapping[str, np.ndarray], labels: ClassLabels, names: list[str] | None, resamples: int
) -> ClassificationMetrics | None:
    if all(labels.by_case[case] == UNKNOWN for case in probabilities):
        return None
    predictions = {
        case: ClassPrediction(int(row.argmax()), row, len(row)) for case, row in sorted(probabilities.items())
    }
    return evaluate_predictions(predictions, labels, names, resamples=resamples, seed=0)


def _calibrate(
    folds: Sequence[_Fold],
    probabilities: Mapping[str, np.ndarray],
    labels: ClassLabels,
    weights: Weights,
    output: Path,
) -> Calibration | None:
    """Temperatures for single folds and for their average, fitted to cases that neither has seen."""
    of_fold = {case: fold.number for fold in folds for case in fold.labels.validation}
    cases = sorted(case for case in probabilities if labels.by_case[case] != UNKNOWN)
    truth = np.array([labels.by_case[case] for case in cases])
    if len(np.unique(truth)) < 2:
        remove_calibration(output)
        return None
    logits = np.log(np.clip(np.stack([probabilities[case] for case in cases]), 1e-12, None))
    parts = np.array([[fold.number for fold in folds].index(of_fold[case]) for case in cases])
    single = fit_calibration(logits, truth, parts)
    calibration: Calibration = {
        "temperature": single["temperature"] if single["helps"] else 1.0,
        "head_weights": {str(fold.number): fingerprint(fold.head.state_dict()) for fold in folds},
        "n_cases": len(cases),
        "folds": [int(fold.number) for fold in folds if fold.number != "all"],
        "before": {**single["before"]},
        "after": None if single["after"] is None else {**single["after"]},
        "helps": single["helps"],
        "review": [{**row} for row in single["review"]],
        "warnings": [],
    }
    if len(folds) > 1:
        together = fit_calibration(_ensemble_logits(folds, cases, of_fold, labels, weights), truth, parts)
        calibration["ensemble_temperature"] = together["temperature"] if together["helps"] else 1.0
        calibration["ensemble_before"] = {**together["before"]}
        calibration["ensemble_after"] = None if together["after"] is None else {**together["after"]}
    write_calibration(calibration, output)
    return calibration


def _ensemble_logits(
    folds: Sequence[_Fold],
    cases: Sequence[str],
    of_fold: Mapping[str, int | str],
    labels: ClassLabels,
    weights: Weights,
) -> np.ndarray:
    """What the average of all folds says of cases that no head was fitted to.

    The heads of all folds are fitted once more without the cases of one fold, whose cases they then predict; what was
    chosen stays. All networks but one have seen the case in training, so its outline may be a little too good: see
    docs/heads.md for what that makes.
    """
    found = np.zeros((len(cases), folds[0].head.num_classes))
    for left_out in folds:
        rows = [row for row, case in enumerate(cases) if of_fold[case] == left_out.number]
        if not rows:
            continue
        each = []
        for fold in folds:
            classes = {**fold.labels.training, **fold.labels.validation}
            rest = {case: k for case, k in classes.items() if of_fold.get(case) != left_out.number}
            known = _known(rest, labels, (), None)
            table = case_table(fold.features, known, fold.head)
            choice = choose(
                table, fold.head.layout, fold.head.num_classes, weights=weights, offered=fold.choice.candidates
            )
            logits = choice.logits(np.stack([fold.features[cases[row]] for row in rows]))
            each.append(softmax(logits, axis=1))
        found[rows] = np.log(np.clip(np.mean(each, axis=0), 1e-12, None))
    return log_softmax(found, axis=1)
