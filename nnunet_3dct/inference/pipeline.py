"""A list of cases: read and preprocess -> network -> export, each in its own threads."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from nnunet_3dct.errors import NNUNet3DCTError
from nnunet_3dct.formats.class_files import ClassFile
from nnunet_3dct.formats.clinical import Covariates
from nnunet_3dct.formats.image_folders import CaseImages, ImageFolder
from nnunet_3dct.inference import case as case_path
from nnunet_3dct.inference.case_writer import CaseWriter
from nnunet_3dct.inference.images import Images
from nnunet_3dct.inference.model import TrainedModel
from nnunet_3dct.inference.options import FolderOptions
from nnunet_3dct.runtime import Message, is_device_lost

Progress = Callable[[int, int], None]


@dataclass
class Outcome:
    """What became of the cases.

    Attributes:
        seconds: case -> seconds spent in ``preprocess``, ``network`` and ``export``; of those that were predicted.
        failed: case -> reason.
        tracebacks: case -> where an error that is not of this package came from.
        review: case -> highest class probability, of those that were marked for review.
        without_basis: case -> why its class rests on nothing.
        unusual: case -> in which way it is unlike the training cases.
    """

    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    tracebacks: dict[str, str] = field(default_factory=dict)
    review: dict[str, float] = field(default_factory=dict)
    without_basis: dict[str, str] = field(default_factory=dict)
    unusual: dict[str, list[str]] = field(default_factory=dict)


class Pipeline:
    """Runs cases through a model; a case that fails is noted and the others go on.

    Args:
        model: in memory.
        writer: where results go.
        options: numbers of threads; ``verbose`` tells of each case how it went.
        on_message: told of cases that fail and of what is odd.
        progress: called with the number of cases that are done and of all.
        covariates: case -> its covariates, for a model that was trained with some.
        images: that reads the cases; files by default.
    """

    def __init__(
        self,
        model: TrainedModel,
        writer: CaseWriter,
        options: FolderOptions,
        on_message: Message,
        progress: Progress | None = None,
        covariates: Mapping[str, Covariates] | None = None,
        images: Images | None = None,
    ) -> None:
        self.model = model
        self.images = images or Images(ImageFolder([], {}))
        self.writer = writer
        self.options = options
        self.on_message = on_message
        self.progress = progress
        self.covariates = covariates or {}
        self._done, self._total = 0, 0

    def run(self, cases: Sequence[CaseImages]) -> Outcome:
        """Predict and write ``cases``; after an error of CUDA that sticks, the remaining ones fail untried."""
        outcome = Outcome()
        waiting = deque(cases)
        preparing: deque[tuple[str, Future[tuple[case_path.PreparedCase, float]]]] = deque()
        exporting: deque[tuple[str, Future[tuple[ClassFile, float]]]] = deque()
        self._done, self._total = 0, len(cases)
        self._step(outcome, 0)
        before, behind = self.options.num_preprocessing_threads, self.options.num_export_threads
        with ThreadPoolExecutor(before, "preprocess") as readers, ThreadPoolExecutor(behind, "export") as writers:
            while waiting or preparing:
                while waiting and len(preparing) < before + 1:
                    images = waiting.popleft()
                    preparing.append((images.case, readers.submit(self._prepare, images)))
                case, prepared = preparing.popleft()
                try:
                    answer = self._predict(*prepared.result(), outcome)
                    exporting.append((case, writers.submit(self._write, answer)))
                    del answer  # what waits for its export shall hold no image
                except Exception as error:
                    self._fail(case, error, outcome)
                    if is_device_lost(error):
                        rest = [*(name for name, _ in preparing), *(images.case for images in waiting)]
                        self._give_up(rest, case, error, outcome)
                        waiting.clear()
                        preparing.clear()
                del prepared
                while len(exporting) > (behind if waiting or preparing else 0):
                    self._finish(*exporting.popleft(), outcome)
            while exporting:
                self._finish(*exporting.popleft(), outcome)
        return outcome

    def _prepare(self, images: CaseImages) -> tuple[case_path.PreparedCase, float]:
        start = time.perf_counter()
        given = self.images.read(images, self.model, self.on_message)
        prepared = case_path.prepare(self.model, given, self.covariates.get(images.case))
        return prepared, time.perf_counter() - start

    def _predict(self, prepared: case_path.PreparedCase, seconds: float, outcome: Outcome) -> case_path.CaseAnswer:
        start = time.perf_counter()
        answer = case_path.predict(self.model, prepared)
        times = {"preprocess": seconds, "network": time.perf_counter() - start}
        outcome.seconds[prepared.case] = times
        if "evidence" in answer.class_file:
            self.on_message(f"{prepared.case}: {answer.class_file['evidence']}; its map is black.")
        for remark in answer.class_file.get("unusual", []):
            self.on_message(f"{prepared.case}: {remark}.")
        if self.options.verbose:
            self.on_message(_account(prepared, answer.class_file, times))
        # on a GPU what waits for its export shall hold no more than a fast export needs
        return replace(answer, logits=answer.logits.cpu()) if self.options.save_probabilities else answer

    def _write(self, answer: case_path.CaseAnswer) -> tuple[ClassFile, float]:
        start = time.perf_counter()
        return self.writer.write(answer), time.perf_counter() - start

    def _finish(self, case: str, exported: Future[tuple[ClassFile, float]], outcome: Outcome) -> None:
        try:
            content, outcome.seconds[case]["export"] = exported.result()
        except Exception as error:
            self._fail(case, error, outcome)
            return
        if content.get("review"):
            outcome.review[case] = max(content["probs"])
        if content.get("unusual"):
            outcome.unusual[case] = content["unusual"]
        if "without_basis" in content:
            outcome.without_basis[case] = content["without_basis"]
            self.on_message(f"{case}: its class is without basis: {content['without_basis']}.")
        self._step(outcome)

    def _fail(self, case: str, error: Exception, outcome: Outcome) -> None:
        outcome.failed[case] = _reason(case, error)
        outcome.seconds.pop(case, None)
        trace = "".join(traceback.format_exception(error))
        if not isinstance(error, NNUNet3DCTError):
            outcome.tracebacks[case] = trace
        self.on_message(f"FAILED {case}: {outcome.failed[case]}" + (f"\n{trace}" if self.options.verbose else ""))
        self._step(outcome)

    def _give_up(self, cases: Sequence[str], case: str, error: Exception, outcome: Outcome) -> None:
        reason = f"not tried, since the device was lost in {case} ({(str(error).splitlines() or ['?'])[0]})"
        for untried in cases:
            outcome.failed[untried] = reason
            self._step(outcome)
        if cases:
            self.on_message(f"The device does not answer any more: {len(cases)} cases are not tried. Start again with "
                            "what is left.")  # fmt: skip

    def _step(self, outcome: Outcome, by: int = 1) -> None:
        self._done += by
        if self.progress is not None:
            self.progress(self._done, self._total)


def _account(prepared: case_path.PreparedCase, content: ClassFile, seconds: dict[str, float]) -> str:
    """One line on a case after its network pass."""
    pred, passes = content["pred"], content["produced_by"]
    name = content["class_names"][pred] if "class_names" in content else f"class {pred}"
    return (
        f"{prepared.case}: {name} ({content['probs'][pred]:.2f}); {tuple(prepared.data.shape[1:])} voxels in "
        f"{passes['windows']} windows of {passes['passes_per_window']} passes; preprocessing "
        f"{seconds['preprocess']:.2f} s, network {seconds['network']:.2f} s"
    )


def _reason(case: str, error: Exception) -> str:
    """Message of an error without the case in front, since it is listed under the case."""
    return str(error).removeprefix(f"{case}: ") or type(error).__name__
