"""The run whose report the seed document prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.predictions import (
    SEED_CONFUSION,
    expand,
    probabilities_for,
    write_case,
    write_labels,
)


@pytest.fixture
def seed_run(tmp_path: Path) -> tuple[Path, Path]:
    """The 36 validation cases of the seed's report; the labels file holds 252 training cases too."""
    truth, predicted = expand(SEED_CONFUSION)
    rows = probabilities_for(predicted)
    for i, (label, row) in enumerate(zip(predicted, rows, strict=True)):
        write_case(
            tmp_path / "predictions",
            f"case_{i:04d}",
            logits=np.log(row).tolist(),
            probs=row.tolist(),
            pred=int(label),
            num_classes=3,
            folds=[0],
        )
    labels: dict[str, object] = {f"case_{i:04d}": int(label) for i, label in enumerate(truth)}
    labels |= {f"train_{i:04d}": str(i % 3) for i in range(252)}
    return tmp_path / "predictions", write_labels(tmp_path, labels)
