"""Predictions and labels as files, for the tests of the class metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SEED_CONFUSION = [[4, 1, 4], [2, 9, 4], [0, 5, 7]]
NAMES = ["subtype0", "subtype1", "subtype2"]


def expand(confusion: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of the cases counted in ``confusion`` (rows truth)."""
    cells = [(t, p) for t, row in enumerate(confusion) for p, count in enumerate(row) for _ in range(count)]
    truth, predicted = np.array(cells).T
    return truth, predicted


def probabilities_for(predicted: np.ndarray, num_classes: int = 3, seed: int = 0) -> np.ndarray:
    """Random probabilities whose most probable class is ``predicted``."""
    rows = np.random.default_rng(seed).dirichlet(np.ones(num_classes), len(predicted))
    for row, label in zip(rows, predicted, strict=True):
        best = row.argmax()
        row[[label, best]] = row[[best, label]]
    return rows


def write_case(folder: Path, case: str, **content: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{case}_classification.json").write_text(json.dumps(content))


def write_labels(folder: Path, labels: dict[str, object]) -> Path:
    path = folder / "classification.json"
    path.write_text(json.dumps(labels))
    return path


def strict_json(path: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)
