"""Reading figures: their words, and where words touch."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.etree import ElementTree

from matplotlib.figure import Figure
from matplotlib.text import Text

SVG = "{http://www.w3.org/2000/svg}"


def words(file: Path) -> list[str]:
    """All text of an SVG, in its order."""
    return [element.text or "" for element in ElementTree.parse(file).iter(f"{SVG}text")]


def letters(figure: Figure) -> list[Text]:
    """All text of a figure that is not empty."""
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def touching(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in letters(figure) if text.axes is figure.axes[0]]
    return [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)]


def outside(figure: Figure) -> list[str]:
    """Texts that reach over the edge of the figure."""
    sheet = figure.bbox
    found = []
    for text in letters(figure):
        box = text.get_window_extent()
        if box.x0 < 0 or box.y0 < 0 or box.x1 > sheet.x1 or box.y1 > sheet.y1:
            found.append(text.get_text())
    return found
