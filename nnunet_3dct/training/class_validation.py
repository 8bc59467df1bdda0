"""Class validation on whole volumes: every epoch without mirroring, at the end beside nnU-Net's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score

from nnunet_3dct.evaluation.classification import evaluate_classification
from nnunet_3dct.formats.atomic import write_json
from nnunet_3dct.formats.checkpoint import fingerprint
from nnunet_3dct.formats.class_files import CLASS_SUFFIX, class_file, write_class_tables
from nnunet_3dct.formats.class_labels import UNKNOWN
from nnunet_3dct.inference.aggregation import CaseClass, passes_per_window
from nnunet_3dct.inference.recording import RecordingNetwork, recording_predictor
from nnunet_3dct.inference.windows import window_layout
from nnunet_3dct.upstream import convert_labelmap_to_one_hot

if TYPE_CHECKING:
    from nnunet_3dct.upstream import nnUNetTrainer

    _Base: type = nnUNetTrainer
else:
    _Base = object


class ClassValidation(_Base):
    """Mixin of :class:`~nnunet_3dct.training.trainer.MultiTaskTrainer`.

    Attributes:
        epoch_class_score: score of the current epoch, None where it was not measured.
    """

    network: Any
    dataset_class: Any
    epoch_class_score: ClassScore | None = None

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        super().on_validation_epoch_end(val_outputs)
        every = self.settings.cls_val_every
        due = (self.current_epoch + 1) % every == 0 or self.current_epoch == self.num_epochs - 1
        self.epoch_class_score = self._score_validation_fold() if due else None
        values = vars(self.epoch_class_score) if self.epoch_class_score else {}
        for key, name in (
            ("cls_val_losses", "log_loss"),
            ("cls_f1_macro", "macro_f1"),
            ("cls_accuracy", "accuracy"),
        ):
            self.logger.log(key, values.get(name, self._last_value(key)), self.current_epoch)

    def _last_value(self, key: str) -> float:
        logged = self.logger.get_value(key, step=None)
        return logged[self.current_epoch - 1] if self.current_epoch > 0 else float("nan")

    def _score_validation_fold(self) -> ClassScore:
        """Sliding window over every whole validation case with a known class, without mirroring."""
        self.set_deep_supervision_enabled(False)
        self.network.eval()
        network = RecordingNetwork(self._network_without_ddp(), self.target_labels, passes_per_window(None))
        predictor = recording_predictor(
            network, self.plans_manager, self.configuration_manager, self.dataset_json, self.device
        )
        probs: dict[str, tuple[float, ...]] = {}
        dataset = self._validation_dataset()
        for case in dataset.identifiers:
            predictor.predict_sliding_window_return_logits(self._load_image(dataset, case))
            probs[case] = network.result().probs
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        merged = {case: p for rank in self._gather(probs) for case, p in rank.items()}
        return score_cases(merged, self.class_labels.by_case)

    def _validation_dataset(self):
        """This rank's share of the validation cases with a known class."""
        if not hasattr(self, "_validation_keys"):
            _, keys = self.do_split()
            self._validation_keys = [k for k in keys if self.class_labels.by_case[k] != UNKNOWN]
        return self.whole_volumes(self._validation_keys)

    def whole_volumes(self, cases: list[str]):
        """This rank's share of preprocessed cases."""
        world_size = torch.distributed.get_world_size() if self.is_ddp else 1
        return self.dataset_class(
            self.preprocessed_dataset_folder,
            cases[self.local_rank :: world_size],
            folder_with_segs_from_previous_stage=self.folder_with_segs_from_previous_stage,
        )

    def _load_image(self, dataset: Any, case: str) -> torch.Tensor:
        """Preprocessed image ``(C, Z, Y, X)``, with the previous stage's labels as channels in a cascade."""
        data, _, previous, _ = dataset.load_case(case)
        data = np.asarray(data[:])
        if self.is_cascaded:
            labels = self.label_manager.foreground_labels
            data = np.vstack((data, convert_labelmap_to_one_hot(previous[:], labels, output_dtype=data.dtype)))
        return torch.tensor(data)

    def _network_without_ddp(self) -> torch.nn.Module:
        return self.network.module if self.is_ddp else self.network

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's validation; the class of each case is noted in the same passes.

        Writes ``<case>_classification.json``, ``subtype_results.csv``, ``subtype_probabilities.csv`` and
        ``classification_metrics.json`` beside the segmentations of the fold.
        """
        network, dataset_class = self.network, self.dataset_class
        recorder = _CaseRecorder(
            RecordingNetwork(
                self._network_without_ddp(),
                self.target_labels,
                passes_per_window(self.inference_allowed_mirroring_axes),
            ),
            self.configuration_manager.patch_size,
        )
        self.network, self.dataset_class = recorder.network, recorder.watch(dataset_class)
        try:
            super().perform_actual_validation(save_probabilities)
        finally:
            self.network, self.dataset_class = network, dataset_class
        recorder.close_case()
        cases = {case: result for rank in self._gather(recorder.results) for case, result in rank.items()}
        if self.local_rank == 0:
            self._write_class_validation(cases)

    def _write_class_validation(self, cases: dict[str, CaseClass]) -> None:
        folder = Path(self.output_folder) / "validation"
        weights = {str(self.fold): fingerprint(self.multitask_network.cls_head.state_dict())}
        for case, result in cases.items():
            report = class_file(
                result.probs,
                self.dataset_json.get("class_names"),
                **result.describe(),
                trainer=type(self).__name__,
                folds=[self.fold],
                head_weights=weights,
                mirror_axes=list(self.inference_allowed_mirroring_axes or []),
                step_size=0.5,
            )
            write_json(report, folder / f"{case}{CLASS_SUFFIX}")
        write_class_tables(folder, cases, self.dataset_json["file_ending"])
        if all(self.class_labels.by_case[case] == UNKNOWN for case in cases):
            self.print_to_log_file("No validation case has a known class: no class metrics.")
            return
        metrics = evaluate_classification(folder, self.class_labels.source)
        write_json(metrics, folder / "classification_metrics.json")
        self.logger.log_summary("final_val/f1_macro", metrics["f1_macro"])
        low, high = metrics["confidence_intervals"]["f1_macro"]
        self.print_to_log_file(
            f"Class validation on {metrics['n_samples']} whole volumes: macro-F1 {metrics['f1_macro']:.4f} "
            f"(95 % interval {low:.2f} to {high:.2f}), accuracy {metrics['accuracy']:.4f}"
        )


class _CaseRecorder:
    """Knows which case nnU-Net's validation loop is at, from the dataset that it loads cases through."""

    def __init__(self, network: RecordingNetwork, patch_size: Sequence[int]) -> None:
        self.network = network
        self.patch_size = patch_size
        self.results: dict[str, CaseClass] = {}
        self._case: str | None = None

    def watch(self, dataset_class: type) -> type:
        """A dataset class that reports every loaded case here."""
        recorder = self

        class WatchedDataset(dataset_class):
            def load_case(self, identifier: str):
                recorder.close_case()
                loaded = super().load_case(identifier)
                recorder._case = identifier
                recorder.network.start_case(len(window_layout(loaded[0].shape[1:], recorder.patch_size)))
                return loaded

        return WatchedDataset

    def close_case(self) -> None:
        """Keep the class of the case that is finished."""
        if self._case is not None:
            self.results[self._case] = self.network.result()
            self._case = None


@dataclass(frozen=True)
class ClassScore:
    """Scores over the cases with a known class; NaN when there is none.

    ``macro_f1`` is the mean over the classes that occur in the fold.
    """

    macro_f1: float
    accuracy: float
    log_loss: float
    n_cases: int

    def better_than(self, other: ClassScore | None) -> bool:
        """Higher macro-F1 wins; at equal macro-F1 the lower log loss."""
        if self.n_cases == 0:
            return False
        return other is None or (self.macro_f1, -self.log_loss) > (other.macro_f1, -other.log_loss)


def score_cases(probs: Mapping[str, tuple[float, ...]], classes: Mapping[str, int]) -> ClassScore:
    """Compare class probabilities with the labels.

    Args:
        probs: case -> class probabilities.
        classes: case -> class, -1 for unknown.
    """
    known = [case for case in probs if classes.get(case, UNKNOWN) != UNKNOWN]
    if not known:
        return ClassScore(float("nan"), float("nan"), float("nan"), 0)
    truth = np.array([classes[case] for case in known])
    table = np.array([probs[case] for case in known])
    predicted = table.argmax(1)
    return ClassScore(
        float(f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)),
        float(accuracy_score(truth, predicted)),
        float(-np.log(np.clip(table[np.arange(len(known)), truth], 1e-12, None)).mean()),
        len(known),
    )
