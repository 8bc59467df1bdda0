"""A sheet in pixels to draw on, and files of it that are the same bytes each time."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

# Okabe and Ito's colours, told apart by colour-blind eyes
BLUE, GREEN, ORANGE, VERMILION, SKY = "#0072B2", "#009E73", "#E69F00", "#D55E00", "#56B4E9"
INK, GREY, PALE = "#222222", "#5F6368", "#C4C8CC"
DPI = 100
# Sheets are laid out in DejaVu Sans, which comes with matplotlib; browsers may take narrower letters
_BROWSER_FONTS = "'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "nnunet_3dct", "font.family": "DejaVu Sans"}


def pixels(size: float) -> float:
    """Font size in points of letters of ``size`` pixels."""
    return size * 72 / DPI


def tint(colour: str, share: float = 0.14) -> tuple[float, ...]:
    """A colour mixed with white."""
    return tuple(1 - share * (1 - part) for part in matplotlib.colors.to_rgb(colour))


class Sheet:
    """White paper of ``width`` × ``height`` pixels, origin at the upper left."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.axis("off")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 11,
        colour: str = INK,
        align: str = "center",
        bold: bool = False,
        width: float | None = None,
    ) -> None:
        """Letters of ``size`` pixels, centred vertically on ``y``; made smaller if wider than ``width``."""
        artist = self.axes.text(
            x, y, text, size=pixels(size), color=colour, ha=align, va="center_baseline", weight="bold" if bold else 400
        )
        if width is not None:
            needed = artist.get_window_extent().width
            artist.set_fontsize(pixels(size * min(1.0, width / needed)))

    def box(
        self, x: float, y: float, width: float, height: float, colour: str, fill: float = 0.14, back: bool = False
    ) -> None:
        """Rounded box with its upper left corner at ``(x, y)``, in front of the lines or at the back."""
        style, line = "round,pad=0,rounding_size=4", 0.7 if back else 1.0
        face, zorder = tint(colour, fill), 1 if back else 3
        patch = FancyBboxPatch((x, y), width, height, style, fc=face, ec=colour, lw=line, zorder=zorder, clip_on=False)
        self.axes.add_patch(patch)

    def line(
        self,
        points: Sequence[tuple[float, float]],
        colour: str = INK,
        arrow: bool = True,
        dashed: bool = False,
        width: float = 1.2,
    ) -> None:
        """Straight pieces from point to point, with a head at the last."""
        style = (0, (3.2, 2.2)) if dashed else "solid"
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, color=colour, lw=width, ls=style, solid_capstyle="butt", zorder=2, clip_on=False)
        if arrow:
            (x0, y0), (x1, y1) = points[-2:]
            length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
            dx, dy = 7 * (x1 - x0) / length, 7 * (y1 - y0) / length
            tip = ((x1, y1), (x1 - dx - dy / 2.2, y1 - dy + dx / 2.2), (x1 - dx + dy / 2.2, y1 - dy - dx / 2.2))
            self.axes.fill(*zip(*tip, strict=True), color=colour, lw=0, zorder=2.1, clip_on=False)


def save(figure: Figure, path: Path, title: str, description: str) -> None:
    """Write SVG or PNG, by the name of the file, without dates or versions; the SVG's text stays text.

    Args:
        figure: closed afterwards.
        path: of the file.
        title, description: for readers who cannot see the SVG.
    """
    with matplotlib.rc_context(_STYLE):
        if path.suffix == ".png":
            figure.savefig(path, dpi=2 * DPI, facecolor="white", metadata={"Software": None})
        else:
            stream = io.StringIO()
            metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
            figure.savefig(stream, format="svg", facecolor="white", metadata=metadata)
            text = re.sub("font-family: [^;]*", f"font-family: {_BROWSER_FONTS}", stream.getvalue())
            text = re.sub(r"(?<=base64,)[^\"]*", _in_grey, text)
            names = f"<title>{html.escape(title)}</title>\n <desc>{html.escape(description)}</desc>\n <defs>"
            text = text.replace("<svg ", '<svg role="img" ', 1).replace("<defs>", names, 1)
            path.write_text(text, encoding="utf-8")
    plt.close(figure)


def _in_grey(picture: re.Match[str]) -> str:
    """An embedded PNG without its colour channels, which slices of CT do not need; the SVG is a quarter smaller."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture[0]))).convert("L").save(stream, "png", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
