"""Formats that reports and evaluation read need no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["prediction_folders", "class_labels", "calibration", "text_tables"])
def test_module_needs_no_torch(module: str) -> None:
    code = (
        f"import sys, nnunet_3dct.formats.{module}; assert 'torch' not in sys.modules and 'nnunetv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
