"""Pictures of predicted cases as PNG files: the axial slices of the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_3dct.report.case_page import class_verdict, structure_colours
from nnunet_3dct.report.case_result import CaseResult
from nnunet_3dct.report.cohort import Cohort
from nnunet_3dct.report.pictures import Picture
from nnunet_3dct.report.wording import title

OVERVIEW = "overview.png"


def draw_cases(cohort: Cohort, output: Path, n: int = 6) -> list[Path]:
    """Draw ``n`` cases, the same number from each class as far as possible, and one overview.

    Each case gets the axial slice of its report, the reference outline dashed and the prediction solid.

    Args:
        cohort: what the report is rendered from; cases with pictures are drawn.
        output: folder, made if it does not exist.
        n: number of cases.

    Returns:
        The files written: ``<case>.png`` and ``overview.png``.
    """
    from matplotlib.figure import Figure

    output.mkdir(parents=True, exist_ok=True)
    cases = choose_cases(cohort.pages, n)
    columns = max((len(cases) + 1) // 2, 1)
    overview = Figure(figsize=(5 * columns, 8))
    axes = overview.subplots(2, columns, squeeze=False).flat
    written = []
    for case, axis in zip_longest(cases, axes):
        if case is None:
            axis.axis("off")
            continue
        single = Figure(figsize=(8, 6))
        for target in (axis, single.subplots()):
            _draw(target, case, cohort)
        written.append(output / f"{case.name}.png")
        single.savefig(written[-1], dpi=110, bbox_inches="tight")
    overview.legend(handles=_legend(cohort), loc="lower center", ncols=4, frameon=False)
    overview.tight_layout(rect=(0, 0.04, 1, 1))
    written.append(output / OVERVIEW)
    overview.savefig(written[-1], dpi=90)
    return written


def choose_cases(cases: Sequence[CaseResult], n: int) -> list[CaseResult]:
    """The first ``n`` cases, taking one of each true class in turn."""
    by_class: dict[int, list[CaseResult]] = {}
    for case in cases:
        truth = case.classified.truth if case.classified and case.classified.truth is not None else -1
        by_class.setdefault(truth, []).append(case)
    in_turn = zip_longest(*(members for _, members in sorted(by_class.items())))
    return [case for row in in_turn for case in row if case is not None][:n]


def _draw(axis: Any, case: CaseResult, cohort: Cohort) -> None:
    assert case.drawn
    picture = next(picture for picture in case.drawn.pictures if picture.plane.name == "axial")
    colours = structure_colours(cohort)
    axis.axis("off")
    if picture.image:
        extent = (0, picture.width, picture.height, 0)
        axis.imshow(_pixels(picture), cmap="gray", vmin=0, vmax=255, extent=extent, aspect="equal")
    for outline in picture.outlines:
        style = "dashed" if outline.reference else "solid"
        for line in outline.lines:
            axis.plot(line[:, 1], line[:, 0], color=colours[outline.structure], linewidth=1.3, linestyle=style)
    axis.set(xlim=(0, picture.width), ylim=(picture.height, 0), aspect="equal")
    axis.set_title(f"{case.name}, slice {picture.number}\n{class_verdict(case, cohort)}", fontsize=11)


def _pixels(picture: Picture) -> np.ndarray:
    """The slice of a picture as the report holds it, greys ``(H, W)`` from 0 to 255."""
    _, _, encoded = str(picture.image).partition(",")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def _legend(cohort: Cohort) -> list[Any]:
    from matplotlib.lines import Line2D

    kinds: list[tuple[Any, str]] = [("solid", "prediction")]
    if cohort.segmentation:
        kinds.append(("dashed", "reference"))
    return [
        Line2D([], [], color=colour, linestyle=style, label=f"{title(name)}, {kind}")
        for name, colour in structure_colours(cohort).items()
        for style, kind in kinds
    ]
