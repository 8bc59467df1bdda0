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

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's, but splits that do not exist yet are stratified by class."""
        path = Path(self.preprocessed_dataset_folder_base, SPLITS_FILE)
        if self.fold != "all" and not path.is_file():
            if self.local_rank == 0:
                folder = self.preprocessed_dataset_folder
                cases = list(infer_dataset_class(folder).get_identifiers(folder))
                write_splits(stratified_splits(cases, self.class_labels.by_case, self.class_labels.groups), path)
                self.print_to_log_file(f"No {SPLITS_FILE} yet: wrote splits stratified by class to {path}.")
            if self.is_ddp:
                torch.distributed.barrier()
        return super().do_split()

    def get_tr_and_val_datasets(self):
        """nnU-Net's; says how the classes are spread and sets class weights and sampling."""
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
                    "nnUNet3DCT_splits spreads the classes over the folds."
                )
        if self.settings.sampler == "balanced":
            training.identifiers = balanced_identifiers(training.identifiers, self.class_labels.by_case)
        return training, validation
