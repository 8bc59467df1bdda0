"""The left part of the figure of the architecture: encoder, decoder and skips, one row for each resolution."""

from __future__ import annotations

from collections.abc import Sequence

from figures.canvas import BLUE, GREEN, GREY, INK, SKY, Sheet
from figures.model_outline import ModelOutline, Stage

ROW, FIRST = 88.0, 206.0  # pixels between rows; middle of the first
CARD, HALF = 136.0, 22.0  # width and half the height of a stage
ENCODER, DECODER = 88.0, 296.0  # left edges of the two columns
EDGE = DECODER + CARD
TAP = 33.0  # below the middle of its row an encoder stage's line to the head runs
TOP = FIRST - ROW  # middle of the row of input and outputs


def shape(sizes: Sequence[int]) -> str:
    """Such as ``64×128×192``."""
    return "×".join(map(str, sizes))


def short(count: int) -> str:
    """A number of parameters in three digits: ``9.12 M``, ``36.1 k``, ``963``."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:#.3g}".rstrip(".") + f" {name}"
    return str(count)


def rows(model: ModelOutline) -> list[float]:
    """Middle of each resolution's row, fine to coarse."""
    return [FIRST + ROW * n for n in range(len(model.encoder))]


def draw_unet(sheet: Sheet, model: ModelOutline) -> dict[str, list[tuple[float, float]]]:
    """Draw the network.

    Returns:
        For each of the features that a head may read the way from its stage to the right edge of this part.
    """
    middle = rows(model)
    last = len(model.encoder) - 1
    _draw_ends(sheet, model)
    for n, (stage, y) in enumerate(zip(model.encoder, middle, strict=True)):
        sheet.text(ENCODER - 12, y, shape(stage.size), 11, GREY, align="right", width=ENCODER - 18)
        left = ENCODER if n < last else (ENCODER + DECODER) / 2
        _draw_stage(sheet, left, y, stage, BLUE)
        if n < last:
            _draw_skip(sheet, y)
            _draw_stage(sheet, DECODER, y, model.decoder[last - 1 - n], GREEN)
    _draw_steps(sheet, model, middle)
    sheet.text((ENCODER + DECODER + CARD) / 2, middle[-1] - HALF - 11, "Bottleneck", 11, BLUE, bold=True)
    ways = {f"encoder {n}": _around(y) for n, y in enumerate(middle)}
    ways[f"encoder {last}"] = [((ENCODER + DECODER) / 2 + CARD, middle[last] + 9), (EDGE, middle[last] + 9)]
    ways |= {f"decoder {last - 1 - n}": [(EDGE, y), (EDGE, y)] for n, y in enumerate(middle[:-1])}
    return {**ways, "logits": [(EDGE, TOP), (EDGE, TOP)]}


def _draw_ends(sheet: Sheet, model: ModelOutline) -> None:
    """Input and segmentation above the first row."""
    channels, *size = model.patch
    for left, title, text in (
        (ENCODER, "CT patch", f"{channels} × {shape(size)}"),
        (DECODER, "Segmentation", f"{model.segmentation[0][0]} × {shape(model.segmentation[0][1:])}"),
    ):
        sheet.box(left, TOP - HALF, CARD, 2 * HALF, GREY, 0.06)
        sheet.text(left + CARD / 2, TOP - 8, title, 12, bold=True)
        sheet.text(left + CARD / 2, TOP + 9, text, 10.5, GREY, width=CARD - 10)
    enc, dec = ENCODER + CARD / 2, DECODER + CARD / 2
    sheet.line([(enc, TOP + HALF), (enc, FIRST - HALF - 1)], BLUE)
    sheet.line([(dec, FIRST - HALF), (dec, TOP + HALF + 1)], GREEN)
    sheet.text(dec + 9, (TOP + FIRST) / 2, f"conv {shape(model.segmentation_kernel)}", 10, GREY, align="left")
    sheet.text(ENCODER - 12, FIRST - HALF - 11, "×".join("ZYX"[-len(size) :]), 11, GREY, align="right")
    for left, title, colour in ((ENCODER, "Encoder", BLUE), (DECODER, "Decoder", GREEN)):
        sheet.text(left, FIRST - HALF - 11, title, 11, colour, align="left", bold=True)


def _draw_stage(sheet: Sheet, left: float, y: float, stage: Stage, colour: str) -> None:
    sheet.box(left, y - HALF, CARD, 2 * HALF, colour)
    sheet.text(left + 10, y - 8, f"{stage.channels} channels", 12, bold=True, align="left")
    sheet.text(left + 10, y + 9, f"{stage.blocks} · {short(stage.parameters)}", 9.3, INK, "left", width=CARD - 24)


def _draw_skip(sheet: Sheet, y: float) -> None:
    sheet.line([(ENCODER + CARD, y), (DECODER - 1, y)], SKY, width=1.6)


def _draw_steps(sheet: Sheet, model: ModelOutline, middle: Sequence[float]) -> None:
    """Arrows down and up with their strides."""
    last = len(middle) - 1
    enc, dec, centre = ENCODER + CARD / 2, DECODER + CARD / 2, (ENCODER + DECODER) / 2
    for n, y in enumerate(middle[1:], start=1):
        above, below = y - ROW + HALF, y - HALF
        label = (above + below) / 2 + 4
        sheet.text(enc - 9, label, f"stride {shape(model.encoder[n].stride)}", 10, GREY, "right")
        sheet.text(dec + 9, label, shape(model.decoder[last - n].stride), 10, GREY, "left")
        if n < last:
            sheet.line([(enc, above), (enc, below - 1)], BLUE)
            sheet.line([(dec, below), (dec, above + 1)], GREEN)
        else:
            sheet.line([(enc, above), (enc, y), (centre - 1, y)], BLUE)
            sheet.line([(centre + CARD, y - 9), (dec, y - 9), (dec, above + 1)], GREEN)


def _around(y: float) -> list[tuple[float, float]]:
    """From an encoder stage below the decoder stage of the same row."""
    right = ENCODER + CARD
    return [(right, y + 12), (right + 14, y + 12), (right + 14, y + TAP), (EDGE, y + TAP)]
