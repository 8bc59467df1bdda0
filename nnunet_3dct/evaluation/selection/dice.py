"""Dice of each case for single models and for pairs, whose segmentation is nnU-Net's own average of probabilities."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_3dct.errors import EvaluationError, ImageError, listing
from nnunet_3dct.evaluation.case_segmentation import structure_labels
from nnunet_3dct.evaluation.trained_folds import TrainedFolds
from nnunet_3dct.formats.image_readers import ImageReader
from nnunet_3dct.formats.label_volumes import (
    PROBABILITIES,
    PROBABILITY_SUFFIXES,
    LabelScheme,
    find_reader,
    load_label_scheme,
    read_pair,
)
from nnunet_3dct.formats.metrics_segmentation import WHOLE_ORGAN
from nnunet_3dct.paths import parse_model_name

SHOWN = 3


@dataclass(frozen=True)
class DiceOfCases:
    """Compares predicted label volumes with the references of a dataset.

    Attributes:
        references: folder.
        scheme: labels of the dataset.
        reader: of the label volumes.
        structures: foreground labels, or regions.
        num_processes: cases at the same time (threads).
        on_case: called after each case.
    """

    references: Path
    scheme: LabelScheme
    reader: ImageReader
    structures: tuple[tuple[int, ...], ...]
    num_processes: int
    on_case: Callable[[], object]

    def of_files(self, predictions: Mapping[str, Callable[[], Path]]) -> np.ndarray:
        """Dice ``(N, L)`` of each case and structure, NaN where reference and prediction are empty.

        Args:
            predictions: case -> what gives the file.
        """

        def compare(case: str) -> list[float]:
            reference = self.references / f"{case}{self.scheme.file_ending}"
            metrics = read_pair(reference, predictions[case](), self.reader, self.scheme).compute_metrics(
                self.structures
            )
            self.on_case()
            return [float(metrics["metrics"][labels]["Dice"]) for labels in self.structures]

        with ThreadPoolExecutor(min(self.num_processes, os.cpu_count() or 1)) as pool:
            return np.array(list(pool.map(compare, predictions)), dtype=float)


def dice_of_cases(
    model: TrainedFolds, case: str, num_processes: int, on_case: Callable[[], object] = lambda: None
) -> DiceOfCases:
    """Read what is needed to compare segmentations of the model's dataset.

    Args:
        model: any model of the dataset.
        case: an example.
        num_processes: cases at the same time.
        on_case: called after each case.

    Raises:
        EvaluationError: ``dataset.json`` cannot be used.
        ImageError: no reader for the references.
    """
    scheme = load_label_scheme(model.dataset_json)
    structures = structure_labels(scheme.content["labels"], scheme.ignore)
    regions = tuple(dict.fromkeys(labels for name, labels in structures.items() if name != WHOLE_ORGAN))
    reader = find_reader(scheme, model.references / f"{case}{scheme.file_ending}")
    return DiceOfCases(model.references, scheme, reader, regions, num_processes, on_case)


def single_dice(compare: DiceOfCases, model: TrainedFolds, cases: Sequence[str]) -> np.ndarray:
    """Dice ``(N, L)`` of the validation segmentations of a model.

    Raises:
        EvaluationError: a segmentation is missing, or does not lie on the grid of its reference.
        ImageError: a file cannot be read.
    """
    ending = compare.scheme.file_ending
    files = {case: folder / f"{case}{ending}" for case, folder in _folders(model).items() if case in set(cases)}
    missing = sorted(case for case, path in files.items() if not path.is_file())
    if missing:
        raise EvaluationError(
            f"{model.model}: expected segmentation and class of each validation case, found a class but no "
            f"segmentation of {listing(missing, SHOWN)}. Run the validation again (nnUNetv2_train ... --val)."
        )
    return compare.of_files({case: _given(files[case]) for case in cases})


def pair_dice(
    compare: DiceOfCases, first: TrainedFolds, second: TrainedFolds, cases: Sequence[str]
) -> tuple[np.ndarray | None, str | None]:
    """Dice ``(N, L)`` of the averaged segmentation probabilities of two models.

    nnU-Net's ``merge_files`` averages what ``nnUNetv2_train ... --npz`` has written, into a temporary folder.

    Returns:
        The Dice and None; or None and why there is none, with what helps.
    """
    folders = [_folders(model) for model in (first, second)]
    for model, of_model in zip((first, second), folders, strict=True):
        missing = [case for case in cases if not _has_probabilities(of_model[case], case)]
        if missing:
            return None, (
                f"{model.model.name} has no segmentation probabilities (.npz) of {len(missing)} of {len(cases)} cases, "
                f"such as {missing[0]}; they come from {_validation(model)}"
            )
    from nnunet_3dct.upstream import PlansManager, merge_files

    ending = compare.scheme.file_ending
    labels = PlansManager(compare.scheme.plans).get_label_manager(compare.scheme.content)
    with tempfile.TemporaryDirectory(prefix="pair_") as made:

        def merge(case: str) -> Path:
            target = Path(made) / f"{case}{ending}"
            files = [str(folder[case] / f"{case}{PROBABILITIES}") for folder in folders]
            try:
                merge_files(files, str(target).removesuffix(ending), ending, compare.reader, labels, False)
            except Exception as error:  # of NumPy, zipfile, pickle, each reader its own
                raise ImageError(f"case {case}: {str(error) or type(error).__name__}") from error
            return target

        try:
            return compare.of_files({case: _merged(merge, case) for case in cases}), None
        except ImageError as error:
            return None, (
                f"the segmentation probabilities of {first.model.name} and {second.model.name} cannot be averaged, "
                f"{error}; they come from {_validation(first)}, and of the other model likewise"
            )


def _validation(model: TrainedFolds) -> str:
    """The command that writes segmentation probabilities of a trained model."""
    name, dataset = parse_model_name(model.model), model.model.resolve().parent.name
    return f"nnUNetv2_train {dataset} {name.configuration} FOLD -tr {name.trainer} -p {name.plans} --val --npz"


def _folders(model: TrainedFolds) -> dict[str, Path]:
    """Case -> folder of its validation."""
    return {case: fold.folder for fold in model.folds for case in fold.predictions}


def _has_probabilities(folder: Path, case: str) -> bool:
    return all((folder / f"{case}{suffix}").is_file() for suffix in PROBABILITY_SUFFIXES)


def _given(path: Path) -> Callable[[], Path]:
    return lambda: path


def _merged(merge: Callable[[str], Path], case: str) -> Callable[[], Path]:
    return lambda: merge(case)


def no_dice(shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """Of a candidate whose Dice is not known: NaN."""
    return np.full(tuple(shape), np.nan)
