"""Maps of where the evidence for the predicted class lies: ``<predictions>/evidence/<case><ending>``."""

from __future__ import annotations

from pathlib import Path

FOLDER = "evidence"
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")  # of files that hold float32 and a geometry


def evidence_path(predictions: Path, case: str, ending: str) -> Path:
    """Where the map of a case lies.

    Args:
        predictions: the prediction folder.
        case: identifier.
        ending: of the image files, as in ``dataset.json``.
    """
    return predictions / FOLDER / f"{case}{ending}"
