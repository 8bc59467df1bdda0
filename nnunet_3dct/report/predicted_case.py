"""Files of every case: predictions and what belongs to them, found by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.errors import EvaluationError, ImageError, listing
from nnunet_3dct.formats.evidence_files import evidence_path
from nnunet_3dct.formats.geometry import geometry_differences, read_geometry
from nnunet_3dct.formats.image_folders import ImageFolder, labels_left_out, list_images, list_labels
from nnunet_3dct.formats.image_readers import ImageReader
from nnunet_3dct.report.options import ReportOptions


@dataclass(frozen=True)
class PredictedCase:
    """Files of one case; None for what was not given or, as the evidence, does not exist."""

    case: str
    prediction: Path
    reference: Path | None
    image: Path | None
    evidence: Path | None


@dataclass(frozen=True)
class CaseFolders:
    """Files of the predicted cases, sorted by name.

    Attributes:
        cases: with a predicted segmentation.
        not_predicted: cases of the image folder without one.
        left_out: file or case -> why it is in no case.
    """

    cases: list[PredictedCase]
    not_predicted: list[str]
    left_out: dict[str, str]


def find_cases(options: ReportOptions, ending: str) -> CaseFolders:
    """List the predicted cases with their files.

    References are matched with predictions by :func:`~nnunet_3dct.formats.label_volumes.match_files`.

    Args:
        options: of the report.
        ending: of images and labels, as in ``dataset.json``.

    Raises:
        EvaluationError: predictions lack an image.
        ImageError: there is no prediction, or a folder holds the same volume in two formats.
    """
    predictions = list_labels(options.predictions, ending)
    images = list_images(options.images, ending) if options.images else ImageFolder([], {})
    first_channels = {found.case: found.files[0] for found in images.cases}
    if options.images:
        _check_images(options.images, list(predictions), first_channels, ending)
    cases = [
        PredictedCase(
            case,
            path,
            options.labels / path.name if options.labels else None,
            first_channels.get(case),
            _existing(evidence_path(options.predictions, case, ending)),
        )
        for case, path in predictions.items()
    ]
    left_out = {**images.left_out, **labels_left_out(options.predictions, ending)}
    return CaseFolders(cases, sorted(set(first_channels) - set(predictions)), left_out)


def check_grids(cases: Sequence[PredictedCase], reader: ImageReader) -> None:
    """Compare the headers of images and evidence with those of the predictions, before the long work.

    Raises:
        ImageError: one of them does not lie on the grid of its prediction, or a header cannot be read.
    """
    for case in cases:
        expected = read_geometry(case.prediction, reader=reader)
        for what, path in (("image", case.image), ("evidence", case.evidence)):
            differences = geometry_differences(read_geometry(path, reader=reader), expected) if path else []
            if differences:
                raise ImageError(
                    f"Case {case.case}: {what} {path} does not lie on the grid of the prediction {case.prediction}: "
                    f"{'; '.join(differences)} (expected is the prediction's). Give the image that was predicted."
                )


def _check_images(folder: Path, cases: list[str], images: dict[str, Path], ending: str) -> None:
    missing = [f"{case}_0000{ending}" for case in cases if case not in images]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(cases)} predictions have no image in {folder}: {listing(missing)}. Add the "
            "images, or make a report without slices, without images."
        )


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
