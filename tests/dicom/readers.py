"""Readers of DICOM results that are not ours: programs of dcmqi, DCMTK and dicom3tools."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import SimpleITK


def program(name: str, package: str) -> str:
    """Path of a program, beside this Python or on the PATH; skips where it is not there."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not there; {package} brings it")
    return found


def run(name: str, package: str, *arguments: object) -> str:
    """Output of a program."""
    command = [program(name, package), *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def conformance_problems(path: Path) -> list[str]:
    """What dciodvfy finds against the standard, but for what it does not know itself."""
    name = program("dciodvfy", "dicom3tools (Debian)")
    done = subprocess.run([name, str(path)], capture_output=True, text=True, errors="replace")
    unknown = (
        "does not support this Specific Character Set",
        "Unrecognized defined term <99NNUNET3DCT>",
        "needed to build DICOMDIR",  # of an empty Study ID, which the source is without
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in lines if not any(text in line for text in unknown)]


def masks_by_dcmqi(path: Path, folder: Path) -> dict[str, SimpleITK.Image]:
    """Segments of a DICOM Segmentation as dcmqi reads them: label -> mask."""
    folder.mkdir(parents=True, exist_ok=True)
    run("segimage2itkimage", "dcmqi (PyPI)", "--inputDICOM", path, "--outputDirectory", folder, "-t", "nii")
    described = json.loads((folder / "meta.json").read_text())["segmentAttributes"]
    return {
        segment["SegmentLabel"]: SimpleITK.ReadImage(str(folder / f"{segment['labelID']}.nii.gz"))
        for group in described
        for segment in group
    }


def report_by_dcmqi(path: Path, folder: Path) -> dict[str, Any]:
    """A TID 1500 report as dcmqi reads it."""
    run("tid1500reader", "dcmqi (PyPI)", "--inputDICOM", path, "--outputMetadata", folder / "report.json")
    return json.loads((folder / "report.json").read_text())


def dump(path: Path) -> str:
    """A report as DCMTK's dsrdump prints it, in full."""
    return run("dsrdump", "dcmtk (Debian)", "--print-long-values", path)
