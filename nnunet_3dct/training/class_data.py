"""Which cases a multi-task training sees, and what their classes count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nnunet_3dct.data.splits import SPLITS_FILE, stratified_splits, write_splits
from nnunet_3dct.errors import listing
from nnunet_3dct.formats.class_labels import UNKNOWN
from nnunet_3dct.training.class_loss import as_tensor, class_weights
from nnunet_3dct.upstream import infer_dataset_class

FoldLabels = dict[str, dict[str, int]]

if TYPE_CHECKING:
    from nnunet_3dct.formats.class_labels import ClassLabels
    from nnunet_3dct.settings import Settings
    from nnunet_3dct.upstream import nnUNetTrainer

    _Base: type = nnUNetTrainer
else:
    _Base = object


class ClassData(_Base):
    """Mixin of :class:`~nnunet_3dct.training.trainer.MultiTaskTrainer`."""

    class_labels: ClassLabels
    settings: Settings
    num_classes: int
    default_class_weights: str
    class_weight: torch.Tensor | None

    _fold_labels: FoldLabels | None = None

    def _write_missing_splits(self) -> None:
        """Stratify by class where nnU-Net would draw splits at random: where none exist yet."""
        path = Path(self.preprocessed_dataset_folder_base, SPLITS_FILE)
        if self.fold != "all" and self.local_rank == 0 and not path.is_file():
            folder = self.preprocessed_dataset_folder
            cases = list(infer_dataset_class(folder).get_identifiers(folder))
            splits = stratified_splits(
                cases, self.class_labels.by_case, self.class_labels.groups, dataset=self.plans_manager.dataset_name
            )
            write_splits(splits, path, overwrite=True)  # of another fold that started with us: the same splits
            self.print_to_log_file(f"No {SPLITS_FILE} yet: wrote splits stratified by class to {path}.")
        if self.is_ddp:  # whether the file is there or not: every process meets here
            torch.distributed.barrier()

    def _labels_of_fold(self) -> FoldLabels:
        """Class of every training and every validation case, as they were when this was first asked."""
        if self._fold_labels is None:
            parts = zip(("training", "validation"), self.do_split(), strict=True)
            self._fold_labels = {
                part: {str(case): self.class_labels.by_case[case] for case in sorted(cases)} for part, cases in parts
            }
        return self._fold_labels

    def get_tr_and_val_datasets(self):
        """nnU-Net's; says how the classes are spread and sets class weights and sampling."""
        self._write_missing_splits()
        self._labels_of_fold()
        training, validation = super().get_tr_and_val_datasets()
        choice = self.settings.class_weights or self.default_class_weights
        counts = {
            name: self.class_labels.counts(part.identifiers, self.num_classes)
            for name, part in (("training", training), ("validation", validation))
        }
        self.class_weight = as_tensor(class_weights(choice, counts["training"]), self.device)
        self.print_to_log_file(
            f"Cases in each class: {counts}; class weights: {choice}, λ = {self.settings.loss_weight}, "
            f"labels that carry the class: {list(self.target_labels.labels)}"
        )
        for name, of_class in counts.items():
            missing = [k for k, n in enumerate(of_class) if n == 0]
            if missing:
                self.print_to_log_file(
                    f"WARNING: fold {self.fold} has no {name} case of class {listing(missing)}. "
                    "nnUNet3DCT_splits spreads the classes over the folds; stage 1 has to be trained on them too."
                )
        if self.settings.sampler == "balanced":
            training.identifiers = balanced_identifiers(training.identifiers, self.class_labels.by_case)
        return training, validation


def balanced_identifiers(cases: Sequence[str], classes: Mapping[str, int], repeats: int = 20) -> list[str]:
    """Repeat identifiers so that drawing uniformly from the result sees each class equally often.

    Cases of unknown class keep the share that they have in ``cases``.

    Args:
        cases: identifiers of the training fold.
        classes: case -> class, -1 for unknown.
        repeats: how often a case of the largest class stands in the result; higher is finer.
    """
    groups: dict[int, list[str]] = {}
    for case in cases:
        groups.setdefault(classes.get(case, UNKNOWN), []).append(case)
    known = {k: group for k, group in groups.items() if k != UNKNOWN}
    if not known:
        return list(cases)
    length = repeats * max(len(group) for group in known.values())
    drawn = [case for group in known.values() for case in np.resize(group, length).tolist()]
    unknown = groups.get(UNKNOWN, [])
    if unknown:
        share = len(unknown) / (len(cases) - len(unknown))
        drawn += np.resize(unknown, round(share * len(drawn))).tolist()
    return drawn
