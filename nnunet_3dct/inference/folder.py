"""Predict a list of cases: read and preprocess -> network -> export, each in its own threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from nnunet_3dct.formats.class_files import class_file
from nnunet_3dct.formats.image_files import check_case_files
from nnunet_3dct.inference.case_writer import CaseWriter
from nnunet_3dct.inference.explanation import note_empty_map
from nnunet_3dct.inference.model import MultiTaskPredictor
from nnunet_3dct.inference.preprocessing import preprocess


@dataclass(frozen=True)
class Case:
    """One case: identifier and one file for each channel, in order."""

    identifier: str
    files: tuple[Path, ...]


@dataclass
class Outcome:
    """What became of the cases.

    Attributes:
        seconds: case -> seconds spent in ``preprocess``, ``network`` and ``export``.
        failed: case -> reason.
        review: case -> highest class probability, of those that were marked for review.
    """

    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    review: dict[str, float] = field(default_factory=dict)


@dataclass
class _Prepared:
    case: Case
    data: torch.Tensor
    properties: dict[str, Any]
    seconds: float


class Pipeline:
    """Runs cases through a predictor; a case that fails is noted and the others go on.

    Args:
        predictor: initialised with a model folder.
        writer: where results go.
        num_preprocessing, num_export: threads for either side of the network; at least 1.
        produced_by: noted in every case's JSON file.
        verbose: say of each case how it went.
        review_below: mark cases whose highest class probability is below; None marks none.
    """

    def __init__(
        self,
        predictor: MultiTaskPredictor,
        writer: CaseWriter,
        num_preprocessing: int,
        num_export: int,
        produced_by: dict[str, Any],
        verbose: bool = False,
        review_below: float | None = None,
    ) -> None:
        self.predictor = predictor
        self.writer = writer
        self.num_preprocessing = num_preprocessing
        self.num_export = num_export
        self.produced_by = produced_by
        self.verbose = verbose
        self.review_below = review_below

    def run(self, cases: Sequence[Case], progress_bar: bool = True) -> Outcome:
        """Predict and write ``cases``."""
        outcome = Outcome()
        waiting = deque(cases)
        preparing: deque[tuple[Case, Future[_Prepared]]] = deque()
        exporting: deque[tuple[Case, Future[float]]] = deque()
        with (
            ThreadPoolExecutor(self.num_preprocessing, "preprocess") as readers,
            ThreadPoolExecutor(self.num_export, "export") as writers,
            tqdm(total=len(cases), desc="Predicting", unit="case", disable=not progress_bar) as bar,
        ):
            while waiting or preparing:
                while waiting and len(preparing) < self.num_preprocessing + 1:
                    case = waiting.popleft()
                    preparing.append((case, readers.submit(self._prepare, case)))
                case, prepared = preparing.popleft()
                try:
                    exporting.append((case, writers.submit(self._predict(prepared.result(), outcome))))
                except Exception as error:
                    self._fail(case, error, outcome, bar)
                while len(exporting) > (self.num_export if waiting or preparing else 0):
                    self._finish(*exporting.popleft(), outcome, bar)
            while exporting:
                self._finish(*exporting.popleft(), outcome, bar)
        return outcome

    def _prepare(self, case: Case) -> _Prepared:
        start = time.perf_counter()
        predictor = self.predictor
        channels = len(predictor.dataset_json.get("channel_names") or predictor.dataset_json.get("modality", {}))
        check_case_files(case.files, channels, case.identifier)
        plans = predictor.plans_manager
        image, properties = plans.image_reader_writer_class().read_images([str(path) for path in case.files])
        data = preprocess(
            image, properties, plans, predictor.configuration_manager, predictor.dataset_json, predictor.device
        )
        return _Prepared(case, data, properties, time.perf_counter() - start)

    def _predict(self, prepared: _Prepared, outcome: Outcome):
        """Run the network now; return what an export thread has to do."""
        start = time.perf_counter()
        prediction = self.predictor.predict_case(prepared.data)
        case = prepared.case.identifier
        outcome.seconds[case] = {"preprocess": prepared.seconds, "network": time.perf_counter() - start}
        names = self.predictor.head_config.get("class_names")
        report = class_file(
            prediction.case_class.probs,
            names,
            temperature=self.predictor.temperature,
            review_below=self.review_below,
            **prediction.case_class.describe(),
            **self.produced_by,
        )
        if note_empty_map(report, prediction.evidence):
            tqdm.write(f"{case}: {report['evidence']}; its map is black.")
        if report.get("review"):
            outcome.review[case] = max(report["probs"])
        if self.verbose:
            tqdm.write(_account(case, prepared, report, outcome.seconds[case]))

        # what waits for its export shall hold no image, and on a GPU no more than a fast export needs
        logits, properties, evidence = prediction.logits, prepared.properties, prediction.evidence
        if self.writer.save_probabilities:
            logits = logits.cpu()

        def export() -> float:
            began = time.perf_counter()
            self.writer.write(case, logits, properties, report, evidence)
            return time.perf_counter() - began

        return export

    def _finish(self, case: Case, exported: Future[float], outcome: Outcome, bar: tqdm) -> None:
        try:
            outcome.seconds[case.identifier]["export"] = exported.result()
            bar.update()
        except Exception as error:
            self._fail(case, error, outcome, bar)

    def _fail(self, case: Case, error: Exception, outcome: Outcome, bar: tqdm) -> None:
        reason = str(error) or type(error).__name__
        outcome.failed[case.identifier] = reason
        outcome.seconds.pop(case.identifier, None)
        outcome.review.pop(case.identifier, None)
        self.writer.remove(case.identifier)
        bar.write(f"FAILED {case.identifier}: {reason}")
        bar.update()


def _account(case: str, prepared: _Prepared, report: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """One line on a case after its network pass."""
    pred, passes = report["pred"], report["produced_by"]
    name = report["class_names"][pred] if "class_names" in report else f"class {pred}"
    return (
        f"{case}: {name} ({report['probs'][pred]:.2f}); {tuple(prepared.data.shape[1:])} voxels in {passes['windows']} "
        f"windows of {passes['passes_per_window']} passes; preprocessing {seconds['preprocess']:.2f} s, network "
        f"{seconds['network']:.2f} s"
    )
