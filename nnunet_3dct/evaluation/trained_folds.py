"""A trained model with what its folds predicted of their validation cases, the basis of all out-of-fold estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.errors import CheckpointError, EvaluationError, listing
from nnunet_3dct.evaluation.out_of_fold import FoldPredictions, read_out_of_fold
from nnunet_3dct.evaluation.provenance import cases_without_basis, unusual_cases
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.checkpoint_values import started_from
from nnunet_3dct.formats.class_labels import ClassLabels, check_class_names, read_dataset_labels
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.splits_file import Splits, read_splits
from nnunet_3dct.paths import DATASET_FILE, PREPROCESSED, nnunet_folder

CHECKPOINT = "checkpoint_final.pth"
SHOWN = 5


@dataclass(frozen=True)
class TrainedFolds:
    """A model with validation predictions.

    Attributes:
        model: its folder.
        preprocessed: folder of the dataset, with ``gt_segmentations``.
        folds: what their networks say of their validation cases.
        labels: class of each case, and the file that it was read from.
        class_names: of ``dataset.json``, None if it has none.
        warnings: what makes an estimate from these folds less than it seems.
    """

    model: Path
    preprocessed: Path
    folds: list[FoldPredictions]
    labels: ClassLabels
    class_names: list[str] | None
    warnings: list[str]

    @property
    def predictions(self) -> dict[str, ClassPrediction]:
        """Case -> class, of all folds."""
        return {case: prediction for fold in self.folds for case, prediction in fold.predictions.items()}

    @property
    def references(self) -> Path:
        """Folder of the reference segmentations."""
        return self.preprocessed / "gt_segmentations"

    @property
    def dataset_json(self) -> Path:
        """The model's ``dataset.json``."""
        return self.model / DATASET_FILE


def find_dataset(model: Path) -> tuple[Path, Splits, ClassLabels]:
    """Preprocessed folder, splits and class labels of the dataset that a model was trained on.

    Args:
        model: folder ``<nnUNet_results>/<dataset>/<trainer>__<plans>__<configuration>``.

    Raises:
        NNUNet3DCTError: one of them is missing, or malformed.
    """
    name = Path(model).resolve().parent.name
    return nnunet_folder(PREPROCESSED) / name, read_splits(name), read_dataset_labels(name)


def find_trained_folds(
    model: Path | str, folds: Sequence[int] | None = None, class_names: Sequence[str] | None = None
) -> TrainedFolds:
    """Read the validation predictions of a model and what belongs to them.

    Args:
        model: its folder.
        folds: numbers; None for all with a validation.
        class_names: come before those of ``dataset.json``, which then may be of another number.

    Raises:
        NNUNet3DCTError: something of it is missing or does not fit.
    """
    model = Path(model)
    if not model.is_dir():
        raise EvaluationError(f"Model folder {model}: expected a folder, found none. Check the path.")
    base, splits, labels = find_dataset(model)
    read = read_out_of_fold(model, splits, folds)
    description = read_json(model / DATASET_FILE, "Description of the model's dataset", CheckpointError)
    names = description.get("class_names")
    numbers = {p.num_classes for fold in read for p in fold.predictions.values() if p.num_classes is not None}
    for number in () if class_names else numbers:
        names = check_class_names(names, number, str(model / DATASET_FILE))
    names = list(class_names) if class_names else names
    return TrainedFolds(model, base, read, labels, names, _warnings(read, splits))


def _warnings(folds: Sequence[FoldPredictions], splits: Splits) -> list[str]:
    """What to know before believing an estimate."""
    warnings = []
    present = {fold.fold for fold in folds}
    missing = [fold for fold in range(len(splits)) if fold not in present]
    if missing:
        covered = sum(len(fold.predictions) for fold in folds)
        everything = len({case for split in splits for case in split["val"]})
        warnings.append(f"without fold{'s' * (len(missing) > 1)} {listing(missing)}: {covered} of {everything} cases")
    for fold in folds:
        if fold.left_over:
            warnings.append(
                f"fold {fold.fold}: class files of an earlier training with other splits left out: "
                f"{listing(fold.left_over, SHOWN)}; delete them from {fold.folder}"
            )
        start = started_from(fold.folder.parent / CHECKPOINT)
        if start and "dataset" not in start and str(start.get("fold")) != str(fold.fold):
            warnings.append(
                f"fold {fold.fold} started from {start.get('path')} of fold {start.get('fold')}, a network that has "
                "seen validation cases of this fold if both share their splits: its scores are too good"
            )
    predictions = {case: prediction for fold in folds for case, prediction in fold.predictions.items()}
    return [*warnings, *cases_without_basis(predictions), *unusual_cases(predictions)]
