"""Files of every case: predictions and what belongs to them, found by name, their grids compared by header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.errors import EvaluationError, ImageError, listing
from nnunet_3dct.formats.image_files import geometry_differences, read_geometry
from nnunet_3dct.inference.explanation import FOLDER as EVIDENCE_FOLDER
from nnunet_3dct.report.options import ReportOptions


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case; None for what was not given or, as the evidence, does not exist."""

    case: str
    prediction: Path
    reference: Path | None
    image: Path | None
    evidence: Path | None


def find_case_files(options: ReportOptions, ending: str) -> list[CaseFiles]:
    """List the predicted cases, sorted.

    References are matched with predictions by :func:`~nnunet_3dct.evaluation.segmentation.evaluate_segmentation`.

    Raises:
        EvaluationError: there is no prediction, or predictions lack an image.
        ImageError: an image or evidence volume does not lie on the grid of its prediction, or a header cannot be read.
    """
    names = sorted(path.name for path in options.predictions.iterdir() if path.name.endswith(ending))
    if not names:
        raise EvaluationError(
            f"{options.predictions}: expected predicted label volumes *{ending} (dataset.json), found none. "
            "Predict first, or check -p."
        )
    files = [_files(options, name, ending) for name in names]
    missing = [found.image.name for found in files if found.image and not found.image.is_file()]
    if missing:
        raise EvaluationError(
            f"-i: {len(missing)} of {len(files)} predictions have no image in {options.images}: {listing(missing)}. "
            "Add the images, or leave out -i for a report without slices."
        )
    for found in files:
        _check_grids(found)
    return files


def images_without_prediction(options: ReportOptions, files: list[CaseFiles], ending: str) -> list[str]:
    """Return the cases of the image folder that were not predicted."""
    if options.images is None:
        return []
    channel = f"_0000{ending}"
    known = {found.case for found in files}
    cases = [p.name.removesuffix(channel) for p in options.images.iterdir() if p.name.endswith(channel)]
    return sorted(case for case in cases if case not in known)


def _files(options: ReportOptions, name: str, ending: str) -> CaseFiles:
    case = name.removesuffix(ending)
    evidence = options.predictions / EVIDENCE_FOLDER / name
    return CaseFiles(
        case,
        options.predictions / name,
        options.labels / name if options.labels else None,
        options.images / f"{case}_0000{ending}" if options.images else None,
        evidence if evidence.is_file() else None,
    )


def _check_grids(files: CaseFiles) -> None:
    expected = read_geometry(files.prediction)
    for what, path in (("image", files.image), ("evidence", files.evidence)):
        if path is None:
            continue
        differences = geometry_differences(read_geometry(path), expected)
        if differences:
            raise ImageError(
                f"Case {files.case}: {what} {path} does not lie on the grid of the prediction {files.prediction}: "
                f"{'; '.join(differences)} (expected is the prediction's). Give the image that was predicted."
            )
