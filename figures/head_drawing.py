"""The right part of the figure of the architecture: what the head reads, its layers, and the class."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from figures.canvas import GREY, ORANGE, VERMILION, Sheet
from figures.head_outline import HeadOutline, Lane, Layer
from figures.unet_drawing import EDGE, TOP, shape, short
from figures.unet_drawing import HALF as OUTPUT_HALF

Point = tuple[float, float]

PANEL = EDGE + 38  # left edge
GATHER = PANEL + 8  # where the features of a lane that reads several meet
WIDEST, HALF = 118.0, 14.0  # greatest width and half the height of a cell
SUMMARY = 84.0  # width of the first cell of a lane
TRUNK, TRUNK_STEP, TRUNK_HALF = 134.0, 62.0, 19.0
MARGIN = 14.0


def draw_head(sheet: Sheet, head: HeadOutline, ways: Mapping[str, Sequence[Point]], bottom: float) -> None:
    """Draw the panel of the head.

    Args:
        sheet: to draw on; the panel ends ``MARGIN`` pixels before its right edge.
        head: what to draw.
        ways: how each of the features gets to the panel, see :func:`~figures.unet_drawing.draw_unet`.
        bottom: lower edge of the panel.
    """
    right = sheet.width - MARGIN
    top = TOP - 62
    sheet.box(PANEL, top, right - PANEL, bottom - top, ORANGE, 0.05, back=True)
    sheet.text(PANEL + 14, top + 18, f"Classification head: {head.name}", 12.5, align="left", bold=True)
    trunk = right - MARGIN - TRUNK
    for n, line in enumerate(textwrap.wrap(head.text, 62)):
        sheet.text(PANEL + 14, top + 37 + 15 * n, line, 10.5, GREY, align="left", width=trunk - PANEL - 24)
    heights = _lane_heights(head.lanes, ways)
    steps = _trunk_heights(head, heights)
    if steps and len(head.lanes) == 1 < len(head.lanes[0].features):
        heights = [steps[0]]
    ends = [_draw_lane(sheet, head, lane, y, ways, trunk) for lane, y in zip(head.lanes, heights, strict=True)]
    _draw_headers(sheet, head.lanes, min(heights), trunk)
    _draw_trunk(sheet, head, steps, ends, trunk)
    for n, (name, sizes) in enumerate(head.own):
        sheet.text(trunk + TRUNK / 2, steps[0] + 36 + 14 * n, f"{name} {shape(sizes[1:])}", 10, GREY, width=TRUNK)


def _lane_heights(lanes: Sequence[Lane], ways: Mapping[str, Sequence[Point]]) -> list[float]:
    """Each lane at the height at which its features arrive, in the middle of several."""
    arrivals = [[ways[name][-1][1] for name in lane.features] for lane in lanes]
    return [(min(ys) + max(ys)) / 2 if len(ys) > 1 else ys[0] for ys in arrivals]


def _trunk_heights(head: HeadOutline, lanes: Sequence[float]) -> list[float]:
    """Layers of the trunk, first to last, upwards below the class."""
    lowest = TOP + TRUNK_STEP * len(head.trunk)
    start = max(lowest, sum(lanes) / len(lanes)) if head.trunk else lowest
    gap = (start - TOP) / max(len(head.trunk), 1)
    return [start - gap * n for n in range(len(head.trunk))]


def _columns(lanes: Sequence[Lane], trunk: float) -> tuple[float, float]:
    """Left edge of the first layer's cell, and the distance to the next one's."""
    start = PANEL + 26 + SUMMARY + 14
    count = max(len(lane.layers) for lane in lanes)
    return start, min((trunk - 30 - start) / max(count, 1), WIDEST)


def _draw_lane(
    sheet: Sheet, head: HeadOutline, lane: Lane, y: float, ways: Mapping[str, Sequence[Point]], trunk: float
) -> Point:
    """Lines of the features, summary, layers; returns the point at which the lane ends."""
    left = PANEL + 26
    _draw_features(sheet, head, lane, ways, (left - 1, y))
    _cell(sheet, left, y, SUMMARY, shape(lane.shape), "")
    start, distance = _columns(head.lanes, trunk)
    x = left + SUMMARY
    for n, layer in enumerate(lane.layers):
        cell = start + distance * n
        sheet.line([(x, y), (cell - 1, y)], ORANGE)
        parameters = short(layer.parameters) if layer.parameters else ""
        _cell(sheet, cell, y, distance - 14, shape(layer.output), parameters)
        x = cell + distance - 14
    return x, y


def _draw_features(
    sheet: Sheet, head: HeadOutline, lane: Lane, ways: Mapping[str, Sequence[Point]], end: Point
) -> None:
    """From the stages to the lane: straight, or gathered in a thick line; dashed where no gradient flows back."""
    dashed = {name: name not in head.trained for name in lane.features}
    if len(lane.features) == 1:
        (name,) = lane.features
        sheet.line([*ways[name][:-1], end], VERMILION, dashed=dashed[name])
        return
    arrivals = [ways[name][-1][1] for name in lane.features]
    for name, y in zip(lane.features, arrivals, strict=True):
        sheet.line([*ways[name], (GATHER, y)], VERMILION, arrow=False, dashed=dashed[name])
    sheet.line([(GATHER, min(arrivals)), (GATHER, max(arrivals))], VERMILION, arrow=False, width=2.4)
    sheet.line([(GATHER, end[1]), end], VERMILION, dashed=all(dashed.values()))


def _cell(sheet: Sheet, left: float, y: float, width: float, text: str, below: str) -> None:
    sheet.box(left, y - HALF, width, 2 * HALF, ORANGE)
    sheet.text(left + width / 2, y - (6 if below else 0), text, 10.5, width=width - 6)
    if below:
        sheet.text(left + width / 2, y + 7, below, 9.5, GREY, width=width - 6)


def _draw_headers(sheet: Sheet, lanes: Sequence[Lane], highest: float, trunk: float) -> None:
    """Names of the layers above the lanes' columns."""
    start, distance = _columns(lanes, trunk)
    headers = [(PANEL + 26 + SUMMARY / 2, SUMMARY + 10, _same([lane.operation for lane in lanes]))]
    for n in range(max(len(lane.layers) for lane in lanes)):
        names = [lane.layers[n].name for lane in lanes if n < len(lane.layers)]
        headers.append((start + distance * n + (distance - 14) / 2, distance - 2, _same(names)))
    for x, width, name in headers:
        lines = _broken(name)
        for n, line in enumerate(lines):
            sheet.text(x, highest - HALF - 10 - 12 * (len(lines) - 1 - n), line, 10, GREY, width=width)


def _draw_trunk(sheet: Sheet, head: HeadOutline, steps: Sequence[float], ends: Sequence[Point], left: float) -> None:
    """Layers after the lanes, upwards to the class."""
    bus, entry = left - 18, (steps[0] if steps else TOP)
    for x, y in ends:
        sheet.line([(x, y), (bus, y)], ORANGE, arrow=False)
    heights = [y for _, y in ends] + [entry]
    sheet.line([(bus, min(heights)), (bus, max(heights))], ORANGE, arrow=False)
    sheet.line([(bus, entry), (left - 1, entry)], ORANGE)
    middle = left + TRUNK / 2
    for n, (layer, y) in enumerate(zip(head.trunk, steps, strict=True)):
        _draw_step(sheet, layer, left, y)
        above = steps[n + 1] + TRUNK_HALF if n + 1 < len(steps) else TOP + OUTPUT_HALF
        sheet.line([(middle, y - TRUNK_HALF), (middle, above + 1)], ORANGE)
    sheet.box(left, TOP - OUTPUT_HALF, TRUNK, 2 * OUTPUT_HALF, GREY, 0.06)
    sheet.text(middle, TOP - 8, "Class", 12, bold=True)
    sheet.text(middle, TOP + 9, f"{head.num_classes} logits", 10.5, GREY)


def _draw_step(sheet: Sheet, layer: Layer, left: float, y: float) -> None:
    middle = left + TRUNK / 2
    sheet.box(left, y - TRUNK_HALF, TRUNK, 2 * TRUNK_HALF, ORANGE)
    times = f"{layer.repeats} × " if layer.repeats > 1 else ""
    sheet.text(middle, y - 7, times + layer.name, 10.5, width=TRUNK - 14)
    sizes = shape(layer.output) if layer.inputs == layer.output else f"{shape(layer.inputs)} → {shape(layer.output)}"
    parameters = f" · {short(layer.parameters)}" if layer.parameters else ""
    sheet.text(middle, y + 9, sizes + parameters, 10, GREY, width=TRUNK - 14)


def _same(names: Sequence[str]) -> str:
    """The name that all lanes share in this column."""
    return names[0] if len(set(names)) == 1 else " / ".join(dict.fromkeys(names))


def _broken(name: str) -> list[str]:
    """A class name in lines of some ten letters, broken before capitals or after commas."""
    lines: list[str] = []
    for part in re.findall(r"[^,\s]+,?", name):
        for word in re.findall(r"[A-Z]+[a-z]*\d*[a-z]*,?|[^A-Z]+", part):
            if lines and len(lines[-1] + word) <= 11 and not lines[-1].endswith(","):
                lines[-1] += word
            else:
                lines.append(word)
    return lines
