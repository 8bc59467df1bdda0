"""The class in the final validation, beside nnU-Net's own segmentations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from nnunet_3dct.errors import listing
from nnunet_3dct.evaluation.classification import evaluate_predictions
from nnunet_3dct.formats.atomic import write_json
from nnunet_3dct.formats.checkpoint import fingerprint
from nnunet_3dct.formats.class_files import CLASS_FILES, CLASS_SUFFIX, class_file, write_class_file
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.class_tables import write_class_tables
from nnunet_3dct.formats.label_volumes import PROBABILITY_SUFFIXES
from nnunet_3dct.formats.metrics_class import CLASSIFICATION_METRICS
from nnunet_3dct.inference.aggregation import CaseClass, passes_per_window
from nnunet_3dct.inference.recording import RecordingNetwork
from nnunet_3dct.inference.windows import window_layout
from nnunet_3dct.networks.heads.base import WholeCaseHead
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.training.class_score import STEP_SIZE
from nnunet_3dct.training.fold_volumes import volume_runner
from nnunet_3dct.upstream import nnUNetTrainer

if TYPE_CHECKING:
    from nnunet_3dct.training.trainer import MultiTaskTrainer

ASIDE = "not_of_this_fold"


def validate(trainer: MultiTaskTrainer, stock_validation: Callable[[], None]) -> None:
    """Run nnU-Net's validation and write the class of each case beside its segmentations.

    Args:
        trainer: of the fold.
        stock_validation: nnU-Net's own, with ``trainer``.
    """
    folder, ending = Path(trainer.output_folder) / "validation", trainer.dataset_json["file_ending"]
    if trainer.local_rank == 0:
        trainer.say(set_aside_other_cases(folder, trainer.fold_labels.validation, ending))
    axes = trainer.inference_allowed_mirroring_axes
    shares = trainer.gather(_classes_of_share(trainer, stock_validation))
    if trainer.local_rank != 0:
        return
    results = {case: found for share in shares for case, found in share.items()}
    head_weights = fingerprint(trainer.multitask_network.cls_head.state_dict())
    names = trainer.dataset_json.get("class_names")
    write_class_results(
        folder, results, Origin(type(trainer).__name__, trainer.fold, head_weights, axes or (), names), ending
    )
    macro_f1, line = write_class_metrics(folder, results, trainer.class_labels)
    if macro_f1 is not None:
        trainer.logger.log_summary("final_val/f1_macro", macro_f1)
    trainer.say(line)


def _classes_of_share(trainer: MultiTaskTrainer, stock_validation: Callable[[], None]) -> dict[str, CaseClass]:
    """Run nnU-Net's validation, and classify the cases of this process's share.

    The class is noted in the same passes, or read from whole cases afterwards, where one pass over each window is
    enough.
    """
    if isinstance(trainer.multitask_network.cls_head, WholeCaseHead):
        stock_validation()
        return volume_runner(trainer).classify(list(trainer.fold_labels.validation))
    recorder = ValidationRecorder(
        trainer.network.module if trainer.is_ddp else trainer.network,
        trainer.target_labels,
        trainer.inference_allowed_mirroring_axes,
        trainer.configuration_manager.patch_size,
    )
    with recorder.in_place(trainer):
        stock_validation()
    return recorder.finish()


class ValidationRecorder:
    """Notes the class of every case that nnU-Net's own validation predicts.

    That validation makes its predictor itself, so it is given a recording network in place of the trainer's, and a
    dataset class that tells which case is loaded.

    Args:
        network: a multi-task network, possibly compiled.
        target: finds the target in the segmentation logits.
        mirror_axes: along which the validation mirrors.
        patch_size: of the network.
    """

    def __init__(
        self, network: nn.Module, target: TargetLabels, mirror_axes: Sequence[int] | None, patch_size: Sequence[int]
    ) -> None:
        self.network = RecordingNetwork(network, target, passes_per_window(mirror_axes))
        self.patch_size = patch_size
        self.results: dict[str, CaseClass] = {}
        self._case: str | None = None

    @contextlib.contextmanager
    def in_place(self, trainer: nnUNetTrainer) -> Iterator[None]:
        """Put network and dataset class in place of the trainer's."""
        network, dataset_class, recorder = trainer.network, trainer.dataset_class, self

        class WatchedDataset(dataset_class):  # type: ignore[valid-type,misc]
            def load_case(self, identifier: str) -> tuple[Any, ...]:
                loaded = super().load_case(identifier)
                recorder.begin(str(identifier), loaded[0].shape[1:])
                return loaded

        trainer.network, trainer.dataset_class = self.network, WatchedDataset
        try:
            yield
        finally:
            trainer.network, trainer.dataset_class = network, dataset_class

    def begin(self, case: str, shape: Sequence[int]) -> None:
        """A case was loaded; the one before it is finished.

        Args:
            case: its identifier.
            shape: spatial, of its preprocessed image.
        """
        self.finish()
        self._case = case
        self.network.start_case(len(window_layout(shape, self.patch_size, STEP_SIZE)))

    def finish(self) -> dict[str, CaseClass]:
        """The class of every case so far."""
        if self._case is not None:
            self.results[self._case] = self.network.result()
            self._case = None
        return self.results


@dataclass(frozen=True)
class Origin:
    """What the class files of a validation say about where they come from."""

    trainer: str
    fold: int | str
    head_weights: str
    mirror_axes: Sequence[int]
    class_names: list[str] | None


def write_class_results(folder: Path, results: Mapping[str, CaseClass], origin: Origin, file_ending: str) -> None:
    """Write a class file for each case and the tables of all of them.

    Args:
        folder: beside the segmentations.
        results: case -> its class.
        origin: see :class:`Origin`.
        file_ending: of the segmentations, for the tables.
    """
    for case, result in results.items():
        content = class_file(
            result.probs,
            origin.class_names,
            **result.describe(),
            trainer=origin.trainer,
            folds=[origin.fold],
            head_weights={str(origin.fold): origin.head_weights},
            mirror_axes=list(origin.mirror_axes),
            step_size=STEP_SIZE,
        )
        write_class_file(content, folder, case)
    write_class_tables(folder, results, file_ending)


def write_class_metrics(
    folder: Path, results: Mapping[str, CaseClass], labels: ClassLabels
) -> tuple[float | None, str]:
    """Score the cases of this validation and no others, by the labels that the training was given.

    Args:
        folder: gets ``classification_metrics.json``.
        results: case -> its class.
        labels: class of every case.

    Returns:
        Macro-F1, None when no case has a known class; and a line for the log.
    """
    if all(labels.by_case[case] == UNKNOWN for case in results):
        return None, "No validation case has a known class: no class metrics."
    predictions = {
        case: ClassPrediction(result.pred, np.array(result.probs), len(result.probs))
        for case, result in sorted(results.items())
    }
    metrics = evaluate_predictions(predictions, labels, None, resamples=2000, seed=0)
    write_json({**metrics, "source": CLASS_FILES}, folder / CLASSIFICATION_METRICS)
    low, high = (metrics["confidence_intervals"] or {})["f1_macro"]
    return metrics["f1_macro"], (
        f"Class validation on {metrics['n_samples']} whole volumes: macro-F1 {metrics['f1_macro']:.4f} "
        f"(95 % interval {low:.2f} to {high:.2f}), accuracy {metrics['accuracy']:.4f}"
    )


def set_aside_other_cases(folder: Path, cases: Collection[str], file_ending: str) -> str | None:
    """Move the results of cases that are not in the fold, left by a training on other splits, into a folder below.

    nnU-Net's summary, cross-validation and report take every result in the folder for one of this training.

    Args:
        folder: of the validation; may not exist yet.
        cases: of the fold.
        file_ending: of the segmentations.

    Returns:
        A line for the log if there were any.
    """
    endings = (CLASS_SUFFIX, file_ending, *PROBABILITY_SUFFIXES)
    moved = set()
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        ending = next((ending for ending in endings if path.name.endswith(ending)), None)
        case = path.name.removesuffix(ending or "")
        if ending is not None and path.is_file() and not case.startswith(".") and case not in cases:
            (folder / ASIDE).mkdir(exist_ok=True)
            path.replace(folder / ASIDE / path.name)
            moved.add(case)
    if not moved:
        return None
    return f"Results of cases that are not in this fold, moved to {folder / ASIDE}: {listing(sorted(moved))}"
