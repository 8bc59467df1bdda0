"""Pictures of predicted cases: slice, outlines and class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import SimpleITK

WINDOW = (-160.0, 240.0)  # HU, abdominal soft tissue
COLOURS = {1: "#56B4E9", 2: "#E69F00"}  # pancreas, lesion; told apart by colour-blind eyes


def draw_cases(
    images: Path,
    references: Path,
    predictions: Path,
    labels: Path,
    class_names: Sequence[str],
    output: Path,
    n: int = 6,
) -> list[Path]:
    """Draw ``n`` cases, the same number from each class as far as possible, and one overview.

    Each case gets the axial slice with the largest reference lesion at the abdominal window, the reference
    outline dashed and the prediction solid.

    Returns:
        The files written: ``<case>.png`` and ``overview.png``.
    """
    truth = json.loads(labels.read_text())
    by_class: dict[int, list[str]] = {}
    for path in sorted(predictions.glob("*_classification.json")):
        case = path.name.removesuffix("_classification.json")
        by_class.setdefault(int(truth[case]), []).append(case)
    cases = [case for row in zip(*by_class.values(), strict=False) for case in row][:n]
    output.mkdir(parents=True, exist_ok=True)
    written = []
    overview, axes = plt.subplots(2, (len(cases) + 1) // 2, figsize=(5 * ((len(cases) + 1) // 2), 8))
    for axis in axes.flat:
        axis.axis("off")
    for case, axis in zip(cases, axes.flat, strict=False):
        single, alone = plt.subplots(figsize=(8, 6))
        for target in (axis, alone):
            _draw(target, case, images, references, predictions, int(truth[case]), class_names)
        written.append(output / f"{case}.png")
        single.savefig(written[-1], dpi=110, bbox_inches="tight")
        plt.close(single)
    lines = [
        plt.Line2D([], [], color=COLOURS[label], ls=style, label=f"{name}, {kind}")
        for label, name in ((1, "pancreas"), (2, "lesion"))
        for style, kind in (("-", "prediction"), ("--", "reference"))
    ]
    overview.legend(handles=lines, loc="lower center", ncols=4, frameon=False)
    overview.tight_layout(rect=(0, 0.04, 1, 1))
    written.append(output / "overview.png")
    overview.savefig(written[-1], dpi=90)
    plt.close(overview)
    return written


def _draw(
    axis: plt.Axes,
    case: str,
    images: Path,
    references: Path,
    predictions: Path,
    truth: int,
    class_names: Sequence[str],
) -> None:
    image = SimpleITK.ReadImage(str(images / f"{case}_0000.nii.gz"))
    volume = SimpleITK.GetArrayFromImage(image)
    reference = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(references / f"{case}.nii.gz")))
    predicted = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(predictions / f"{case}.nii.gz")))
    result = json.loads((predictions / f"{case}_classification.json").read_text())
    z = int((reference == 2).sum(axis=(1, 2)).argmax())
    spacing_x, spacing_y, _ = image.GetSpacing()
    axis.axis("off")
    axis.imshow(volume[z], cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], aspect=spacing_y / spacing_x)
    for labels, style in ((reference[z], "dashed"), (predicted[z], "solid")):
        for label, colour in COLOURS.items():
            mask = (labels >= 1 if label == 1 else labels == 2).astype(float)
            if np.ptp(mask) > 0:
                axis.contour(mask, levels=[0.5], colors=colour, linewidths=1.3, linestyles=style)
    pred = int(result["pred"])
    verdict = "correct" if pred == truth else f"reference: {class_names[truth]}"
    axis.set_title(f"{case}, slice {z}: {class_names[pred]} {result['probs'][pred]:.0%} ({verdict})", fontsize=11)
