"""Reliability diagram: how often cases of a given probability are right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_3dct.errors import OutputError

STYLES = {"before": ("#D55E00", "o"), "after": ("#0072B2", "s")}  # told apart by colour-blind eyes, and by marker


def draw_reliability(result: Mapping[str, Any], path: Path) -> None:
    """Draw accuracy against the highest probability, before and after calibration; area of a marker: cases.

    matplotlib's settings and its choice of a backend stay what they are.

    Args:
        result: of :func:`~nnunet_3dct.evaluation.calibration.calibrate`.
        path: with an ending that matplotlib knows.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5))
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect")
    for key, (colour, marker) in STYLES.items():
        if result[key] is None:
            continue
        bins = [b for b in result[key]["reliability"] if b["n"]]
        total = sum(b["n"] for b in bins)
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        label = f"{key} (ECE {result[key]['expected_calibration_error']:.3f})"
        axis.plot(x, y, color=colour, label=label, marker=marker, markersize=4, clip_on=False)
        axis.scatter(x, y, s=[600 * b["n"] / total for b in bins], color=colour, alpha=0.25, clip_on=False)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="highest class probability", ylabel="share of correct cases")
    axis.set_aspect("equal")
    axis.legend(loc="lower right", frameon=False)
    try:
        figure.savefig(path, dpi=150, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
