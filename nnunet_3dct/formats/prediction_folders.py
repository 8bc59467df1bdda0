"""Class predictions of a folder, from its class files or its tables."""

from __future__ import annotations

from pathlib import Path

from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.formats.class_files import CLASS_FILES, CLASS_SUFFIX, class_file_path, classified_in, read_class_file
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.class_tables import PROBABILITIES_CSV, RESULTS_CSV, read_probabilities, read_results


def has_class_predictions(folder: Path) -> bool:
    """Whether :func:`read_predictions` finds anything in ``folder``."""
    return bool(classified_in(folder)) or any((folder / name).is_file() for name in (PROBABILITIES_CSV, RESULTS_CSV))


def read_predictions(folder: Path) -> tuple[dict[str, ClassPrediction], str]:
    """Read the class predictions of a folder.

    The first of these that exists is used: ``<case>_classification.json`` files;
    ``subtype_probabilities.csv`` (``Names,<class>,...``; the class is the most probable one);
    ``subtype_results.csv`` (``Names,Subtype``).

    Returns:
        Predictions by case, and what they were read from.

    Raises:
        EvaluationError: there are none, or one of them cannot be used.
    """
    if not folder.is_dir():
        raise EvaluationError(f"Predictions folder {folder} does not exist. Check the path.")
    cases = classified_in(folder)
    if cases:
        predictions = {case: read_class_file(class_file_path(folder, case)) for case in cases}
        source = CLASS_FILES
    elif (folder / PROBABILITIES_CSV).is_file():
        predictions, source = read_probabilities(folder / PROBABILITIES_CSV), PROBABILITIES_CSV
    elif (folder / RESULTS_CSV).is_file():
        predictions, source = read_results(folder / RESULTS_CSV), RESULTS_CSV
    else:
        raise EvaluationError(
            f"{folder} holds no class predictions: expected <case>{CLASS_SUFFIX} files, "
            f"{PROBABILITIES_CSV} or {RESULTS_CSV}. Was the prediction written to another folder (-co)?"
        )
    if not predictions:
        raise EvaluationError(f"{folder / source}: expected one row for each case, found none.")
    return predictions, source
