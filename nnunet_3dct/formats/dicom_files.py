"""Names of the DICOM results of a case."""

from __future__ import annotations

from pathlib import Path

SEGMENTATION, REPORT, STRUCTURES = "segmentation", "report", "structures"
SUFFIXES = {SEGMENTATION: "_seg.dcm", REPORT: "_sr.dcm", STRUCTURES: "_rtstruct.dcm"}


def dicom_result_path(folder: Path, case: str, kind: str) -> Path:
    """``<folder>/<case>_seg.dcm``, ``<case>_sr.dcm`` or ``<case>_rtstruct.dcm``."""
    return folder / f"{case}{SUFFIXES[kind]}"
