"""Average the class probabilities of several prediction folders of the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_3dct.errors import EvaluationError, OutputError, SettingsError
from nnunet_3dct.evaluation.comparison import check_same_cases
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.class_files import ClassFile, class_file, write_class_file
from nnunet_3dct.formats.class_prediction import ClassPrediction
from nnunet_3dct.formats.class_tables import write_class_tables
from nnunet_3dct.formats.prediction_folders import read_predictions
from nnunet_3dct.paths import DATASET_FILE

NIFTI = ".nii.gz"


def average_classes(folders: Sequence[Path | str], output: Path | str) -> dict[str, ClassFile]:
    """Average the class probabilities of prediction folders, as of two models that are used together.

    Writes ``<case>_classification.json`` of each case and the tables of all cases. Segmentations are averaged by
    ``nnUNetv2_ensemble``, which may write into the same folder.

    Args:
        folders: at least two, with class predictions of the same cases.
        output: folder, made if it does not exist.

    Returns:
        Case -> content of its class file.

    Raises:
        SettingsError: fewer than two folders.
        EvaluationError: a folder has no class predictions, or the folders hold other cases or classes.
        OutputError: a file cannot be written.

    Examples:
        >>> import nnunet_3dct
        >>> averaged = nnunet_3dct.average_classes([predictions, predictions], tmp / "both")
        >>> sorted(averaged)[:2]
        ['new_000', 'new_001']
        >>> (tmp / "both" / "subtype_results.csv").is_file()
        True
    """
    if len(folders) < 2:
        raise SettingsError(f"folders: expected at least 2, found {len(folders)}.")
    sources = [Path(folder) for folder in folders]
    read = [read_predictions(folder)[0] for folder in sources]
    for folder, predictions in zip(sources[1:], read[1:], strict=True):
        check_same_cases(sources[0], set(read[0]), folder, set(predictions))
    averaged = {case: _average(case, [p[case] for p in read], sources) for case in sorted(read[0])}
    target = Path(output)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be made: {error}.") from error
    for case, content in averaged.items():
        write_class_file(content, target, case)
    write_class_tables(target, averaged, _file_ending(sources[0]))
    return averaged


def _average(case: str, predictions: Sequence[ClassPrediction], sources: Sequence[Path]) -> ClassFile:
    rows = []
    for prediction, source in zip(predictions, sources, strict=True):
        if prediction.probabilities is None:
            raise EvaluationError(f"{source}: case {case}: expected class probabilities, found only a class.")
        rows.append(prediction.probabilities)
        if len(rows[0]) != len(rows[-1]):
            raise EvaluationError(
                f"Case {case}: expected the same classes in all folders, found {len(rows[0])} in {sources[0]} and "
                f"{len(rows[-1])} in {source}."
            )
    averaged_from = [dict(prediction.produced_by) for prediction in predictions]
    return class_file(np.mean(rows, axis=0).tolist(), predictions[0].class_names, averaged_from=averaged_from)


def _file_ending(folder: Path) -> str:
    """Of the segmentations, from the ``dataset.json`` that prediction leaves in its folder."""
    path = folder / DATASET_FILE
    if not path.is_file():
        return NIFTI
    return str(read_json(path, "Description of the dataset", EvaluationError).get("file_ending", NIFTI))
