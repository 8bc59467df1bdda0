"""The figure of predicted cases: two planes with outlines, and the class with its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.canvas import GREEN, GREY, INK, ORANGE, PALE, SKY, VERMILION, Sheet, tint
from figures.predicted_case import LESION, DrawnCase
from nnunet_3dct.report.options import WINDOW

WIDTH, GAP = 1000.0, 14.0
CAPTION, BARS, LEGEND = 50.0, 76.0, 52.0  # pixels above the slices, below them, and at the foot
# plane, its axis across the slice, its axes down and across the picture; Z points up in the coronal one
PLANES = (("axial", 0, (1, 2)), ("coronal", 1, (0, 2)))
OUTLINES = (("pancreas", 1, SKY), ("lesion", LESION, ORANGE))


def style(kind: str, colour: str) -> tuple[Any, Any, float]:
    """Colour, dashes and width of an outline: the reference lies on the prediction, lighter and dashed."""
    return (colour, "solid", 1.7) if kind == "prediction" else (tint(colour, 0.35), (0, (2.6, 1.8)), 1.2)


def draw(cases: Sequence[DrawnCase], class_names: Sequence[str], choice: str) -> Figure:
    """Draw the cases side by side, all at the same scale.

    Args:
        cases: in the order in which they are shown.
        class_names: of all classes.
        choice: how the cases were chosen, for the foot of the figure; may be empty.
    """
    field = _field(cases)
    column = (WIDTH - GAP * (len(cases) + 1)) / len(cases)
    scale = column / field[2]  # pixels in a mm
    heights = [field[down] * scale for _, _, (down, _) in PLANES]
    foot = CAPTION + sum(heights) + GAP / 2 * len(PLANES) + BARS
    sheet = Sheet(WIDTH, foot + LEGEND)
    for n, case in enumerate(cases):
        left = GAP + (column + GAP) * n
        _draw_caption(sheet, case, class_names, left, column)
        top = CAPTION
        for plane, height in zip(PLANES, heights, strict=True):
            _draw_plane(sheet, case, plane, field, (left, top, column, height))
            top += height + GAP / 2
        _draw_bars(sheet, case, class_names, left, top + 8, column)
    _draw_foot(sheet, foot + 14, scale, choice)
    return sheet.figure


def _field(cases: Sequence[DrawnCase]) -> np.ndarray:
    """Extent ``(z, y, x)`` in mm that all cases can show."""
    return np.min([np.multiply(case.image.shape, case.spacing) for case in cases], axis=0)


def _window(case: DrawnCase, axis: int, field: np.ndarray) -> tuple[float, float]:
    """From where to where along ``axis``, in voxels: around the lesion, inside the volume."""
    size = field[axis] / case.spacing[axis]
    lesion = np.nonzero((case.reference == LESION).any(axis=tuple({0, 1, 2} - {axis})))[0]
    middle = (lesion[0] + lesion[-1] + 1) / 2 if len(lesion) else case.image.shape[axis] / 2
    start = float(np.clip(middle - size / 2, 0, case.image.shape[axis] - size))
    return start - 0.5, start + size - 0.5  # voxel n reaches from n - 0.5 to n + 0.5


def _draw_plane(
    sheet: Sheet,
    case: DrawnCase,
    plane: tuple[str, int, tuple[int, int]],
    field: np.ndarray,
    place: tuple[float, float, float, float],
) -> None:
    """The slice of the largest reference lesion; reference dashed, prediction solid."""
    name, across, (down, along) = plane
    areas = (case.reference == LESION).sum(axis=(down, along))
    number = int(areas.argmax())
    image, reference, prediction = (np.take(a, number, across) for a in (case.image, case.reference, case.prediction))
    left, top, width, height = place
    axes = sheet.figure.add_axes(
        (left / sheet.width, 1 - (top + height) / sheet.height, width / sheet.width, height / sheet.height)
    )
    axes.imshow(image, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], aspect="auto", interpolation="bicubic")
    for labels, kind in ((prediction, "prediction"), (reference, "reference")):
        for _, label, colour in OUTLINES:
            mask = (labels >= label).astype(float)
            if np.ptp(mask) > 0:
                shade, dashes, line = style(kind, colour)
                axes.contour(mask, levels=[0.5], colors=[shade], linewidths=line, linestyles=[dashes])
    low, high = _window(case, down, field)
    axes.set(xlim=_window(case, along, field), ylim=(low, high) if name == "coronal" else (high, low))
    axes.axis("off")
    axes.set_zorder(-1)  # below the letters of the sheet
    sheet.text(left + 7, top + 12, name, 10.5, "white", "left")


def _draw_caption(sheet: Sheet, case: DrawnCase, names: Sequence[str], left: float, width: float) -> None:
    right = case.predicted == case.truth
    verdict = f"{names[case.predicted]} {case.probabilities[case.predicted]:.2f}"
    sheet.text(left, 17, f"Predicted: {verdict}", 13, align="left", bold=True)
    sheet.text(left, 36, f"True class: {names[case.truth]}", 11, GREY, "left")
    sheet.text(left + width, 17, "correct" if right else "wrong", 11, GREEN if right else VERMILION, "right", bold=True)
    sheet.text(left + width, 36, f"{case.name} · lesion Dice {case.lesion_dice:.2f}", 11, GREY, "right")


def _draw_bars(sheet: Sheet, case: DrawnCase, names: Sequence[str], left: float, top: float, width: float) -> None:
    """Probability of each class; the true one has its name in bold."""
    label, number = 92.0, 36.0
    full = width - label - number
    for n, (name, probability) in enumerate(zip(names, case.probabilities, strict=True)):
        y = top + 9 + 20 * n
        sheet.text(left, y, name, 10.5, align="left", bold=n == case.truth)
        for share, colour in ((1.0, tint(PALE, 0.45)), (probability, GREY if n != case.predicted else SKY)):
            sheet.axes.fill_between([left + label, left + label + full * share], y - 5, y + 5, color=colour, lw=0)
        sheet.text(left + width, y, f"{probability:.2f}", 10.5, GREY, "right")


def _draw_foot(sheet: Sheet, y: float, scale: float, choice: str) -> None:
    """Legend, scale bar, and how the cases were chosen."""
    x = GAP
    for name, _, colour in OUTLINES:
        for kind in ("prediction", "reference"):
            sheet.box(x, y - 9, 38, 18, INK, 0.75, back=True)
            shade, dashes, line = style(kind, colour)
            sheet.axes.plot([x + 6, x + 33], [y, y], color=shade, ls=dashes, lw=line)
            sheet.text(x + 46, y, f"{name}, {kind}", 10.5, GREY, "left")
            x += 180
    right, length = sheet.width - GAP, 20 * scale
    sheet.line([(right - length, y), (right, y)], INK, arrow=False, width=2.5)
    sheet.text(right - length - 8, y, "20 mm", 10.5, GREY, "right")
    low, high = WINDOW
    window = f"\N{MINUS SIGN}{-low:.0f} to {high:.0f} HU"
    note = f"Synthetic CT, window {window}, slices of the largest reference lesion. {choice}"
    sheet.text(GAP, y + 23, note.strip(), 10.5, GREY, "left", width=sheet.width - 2 * GAP)
