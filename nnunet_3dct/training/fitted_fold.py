"""A case head fitted to one fold of a segmentation model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from typing_extensions import TypedDict

from nnunet_3dct.data.splits import Splits
from nnunet_3dct.errors import ClassLabelsError, SettingsError, listing
from nnunet_3dct.formats.checkpoint import Checkpoint
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels
from nnunet_3dct.formats.clinical import ClinicalTable
from nnunet_3dct.networks.heads.case import CaseHead
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.training.case_features import CaseFeatures
from nnunet_3dct.training.class_data import FoldLabels
from nnunet_3dct.training.fit_head import Columns, KnownCases, fit_case_head
from nnunet_3dct.training.head_choice import Choice, Weights

Fold = int | str


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


@dataclass(frozen=True)
class Task:
    """What all folds share.

    Attributes:
        labels: class of each case.
        clinical: covariates of the patients, None for none.
        weights: of the classes.
    """

    labels: ClassLabels
    clinical: ClinicalTable | None
    weights: Weights

    def known(self, classes: Mapping[str, int], unseen: Iterable[str] = (), clinical: bool = True) -> KnownCases:
        """Those cases whose class is known.

        Args:
            classes: of the cases.
            unseen: cases that the network was not trained on.
            clinical: whether the covariates go along.
        """
        known = {case: label for case, label in classes.items() if label != UNKNOWN}
        return KnownCases(known, self.labels.groups, tuple(unseen), self.clinical if clinical else None)


@dataclass(frozen=True)
class FittedFold:
    """A fold with its head.

    Attributes:
        number: of the fold, or ``all``.
        labels: classes of its training and validation cases.
        checkpoint: of the segmentation.
        target: finds the target.
        head: fitted to the training cases.
        features: of all cases that the folds share, by that head.
        choice: what was fitted.
        fit: the same for ``fit_head.json``.
    """

    number: Fold
    labels: FoldLabels
    checkpoint: Checkpoint
    target: TargetLabels
    head: CaseHead
    features: Columns
    choice: Choice
    fit: FoldFit

    def held_out(self) -> dict[str, np.ndarray]:
        """Class probabilities of the validation cases."""
        cases = list(self.labels.validation)
        if not cases:
            return {}
        rows = np.stack([self.features[case] for case in cases])
        with torch.no_grad():
            weight = self.head.classifier.weight
            logits = self.head.classify_case(torch.from_numpy(rows).to(weight.device, weight.dtype))
        return dict(zip(cases, logits.double().softmax(1).cpu().numpy(), strict=True))


def parts_of(splits: Splits, folds: Sequence[Fold], labels: ClassLabels) -> list[FoldLabels]:
    """Training and validation cases of each fold with their classes.

    Raises:
        SettingsError: a fold is not in the splits.
        ClassLabelsError: a case has no entry among the labels.
    """
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


def require_unseen(checkpoint: Checkpoint, part: FoldLabels, fold: Fold) -> None:
    """Checkpoints of this project note what they were trained on.

    Raises:
        SettingsError: validation cases are among that.
    """
    seen = sorted(set(checkpoint.labels.get("training", {})).intersection(part.validation))
    if seen:
        raise SettingsError(
            f"Fold {fold}: expected validation cases that the network has not seen, found {listing(seen)} among those "
            "it was trained on. The splits changed since; restore them or train again."
        )


def fit_fold(
    number: Fold, part: FoldLabels, checkpoint: Checkpoint, maker: CaseFeatures, rows: Columns, task: Task
) -> FittedFold:
    """Choose and fit a head.

    Args:
        number: of the fold.
        part: its cases.
        checkpoint: of the segmentation.
        maker: gave the features.
        rows: features of all cases.
        task: classes and covariates.

    Raises:
        SettingsError: there are too few cases of known class in which the network finds the target.
    """
    known = task.known(part.training, part.validation)
    found = fit_case_head(maker.head, rows, known, task.weights)
    if found.fitted is None:
        raise SettingsError(
            f"Fold {number}: expected two training cases of two classes in which the network finds the target (labels "
            f"{listing(maker.target.labels)}), found {found.counts} in each class of {len(known.classes)} cases with a "
            "known class. Train the segmentation for longer, check the target labels, or add cases."
        )
    head, choice = found.fitted
    fit: FoldFit = {
        "training_cases": found.counts,
        "without_target": sorted(set(known.classes) - set(found.table.cases)),
        "chosen": [str(candidate) for candidate in choice.candidates],
        "log_losses": dict(choice.log_losses),
    }
    return FittedFold(number, part, checkpoint, maker.target, head, found.features, choice, fit)
