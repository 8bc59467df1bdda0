"""The result of a check as a file for machines."""

from __future__ import annotations

import math

from nnunet_3dct import __version__
from nnunet_3dct.data.checks.cases import CheckedCase, CheckedCases
from nnunet_3dct.data.checks.dataset import DatasetCheck
from nnunet_3dct.data.checks.findings import Level
from nnunet_3dct.formats.check_files import CaseEntry, CheckFile, FindingEntry


def check_file(result: DatasetCheck) -> CheckFile:
    """Content of the file. A case that is in two parts of the dataset stands there once."""
    cases = result.cases
    return {
        "version": __version__,
        "dataset": str(result.folder),
        "ok": result.ok,
        "num_training": result.num_training,
        "num_held_out": result.num_held_out,
        "problems": _entries(result, "problem"),
        "warnings": _entries(result, "warning"),
        "notes": _entries(result, "note"),
        "read": result.read,
        "cases": {case.case: case_entry(case, cases) for case in cases.all} if cases else {},
        "seconds": result.seconds,
    }


def case_entry(case: CheckedCase, cases: CheckedCases) -> CaseEntry:
    """What was measured of a case."""
    grid, measured = case.check.grid, case.check.measured
    structures = measured.structures if measured else None
    voxel = math.prod(grid.spacing) / 1000 if grid else 0.0
    return {
        "part": case.part,
        "size": list(grid.size) if grid else None,
        "spacing_mm": list(grid.spacing) if grid else None,
        "axes": measured.axes if measured else None,
        "intensity_range": [measured.intensities.minimum, measured.intensities.maximum] if measured else None,
        "intensity_mean": measured.intensities.mean if measured else None,
        "structures_ml": None
        if structures is None
        else {
            name: structures[label].voxels * voxel if label in structures else 0.0
            for label, name in cases.structures.items()
        },
    }


def _entries(result: DatasetCheck, level: Level) -> list[FindingEntry]:
    return [
        {"subject": finding.subject, "text": finding.text, "cases": list(finding.cases)}
        for finding in result.findings
        if finding.level == level
    ]
