from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.inputs import Inputs


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Six cases with images, references, classes of both kinds, without evidence."""
    return Inputs(tmp_path).write()
