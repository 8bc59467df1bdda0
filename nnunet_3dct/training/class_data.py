"""Which cases a multi-task training sees, and what their classes count."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_3dct.errors import listing
from nnunet_3dct.training.losses import as_tensor, class_weights
from nnunet_3dct.training.sampling import balanced_identifiers
from nnunet_3dct.training.splits import SPLITS_FILE, stratified_splits, write_splits

FoldLabels = dict[str, dict[str, int]]

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_3dct.class_labels import ClassLabels
    from nnunet_3dct.settings import Settings

    _Base: type = nnUNetTrainer
else:
    _Base = object


class ClassData(_Base):
    """Mixin of :class:`~nnunet_3dct.training.multitask_trainer.MultiTaskTrainer`."""

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
            splits = stratified_splits(cases, self.class_labels.by_case, self.class_labels.groups)
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
