"""The toy dataset as nnU-Net's own classes see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_3dct import upstream
from tests import toy


@pytest.fixture(scope="module")
def preprocessed(toy_root: Path) -> Path:
    """The preprocessed toy dataset."""
    return toy_root / "preprocessed" / toy.DATASET


@pytest.fixture(scope="module")
def plans(preprocessed: Path) -> dict[str, Any]:
    return json.loads((preprocessed / f"{toy.PLANS}.json").read_text())


@pytest.fixture(scope="module")
def dataset_json(preprocessed: Path) -> dict[str, Any]:
    return json.loads((preprocessed / "dataset.json").read_text())


@pytest.fixture(scope="module")
def plans_manager(plans: dict[str, Any]) -> Any:
    return upstream.PlansManager(plans)


@pytest.fixture(scope="module")
def configuration(plans_manager: Any) -> Any:
    return plans_manager.get_configuration("3d_fullres")
