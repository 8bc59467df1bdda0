"""Draw the rooms of the package and what goes through them: ``figures/rooms.svg``.

Rooms and their order are those of the import contract in ``pyproject.toml``; what goes through them is written here.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from figures.canvas import BLUE, GREEN, GREY, INK, ORANGE, PALE, VERMILION, Sheet, save

HERE = Path(__file__).parent
PYPROJECT = HERE.parent / "pyproject.toml"
ROW, ROOM_WIDTH, COLUMN, LEFT, TOP = 52.0, 232.0, 214.0, 34.0, 76.0

CAPTIONS = {
    "cli": "commands: parse, call, print",
    "demo": "the whole workflow on the phantom",
    "probe": "plain classifiers on the features",
    "report": "one HTML page; no torch",
    "training": "nnU-Net's trainer with a head",
    "inference": "Predictor: both answers in one pass",
    "data": "checks of a data set, splits",
    "phantom": "synthetic CT with three classes",
    "evaluation": "metrics, calibration; no torch",
    "networks": "U-Net and heads",
    "dicom": "series, masks and reports of a hospital",
    "formats": "each file read and written in one module",
    "paths": "where things lie",
    "settings": "NNUNETV2_* variables",
    "runtime": "devices, precision, memory",
    "upstream": "every name of nnU-Net that is used",
    "errors": "one family of exceptions",
}


@dataclass(frozen=True)
class Way:
    """What goes through the rooms.

    Attributes:
        title: of the thing.
        colour: of its line.
        stops: room and what happens there, in order of time; a room may come twice.
    """

    title: str
    colour: str
    stops: Sequence[tuple[str, str]]


WAYS = (
    Way(
        "A case",
        BLUE,
        (
            ("formats", "files listed, grids compared"),
            ("data", "check: every file whole"),
            ("inference", "image, tensor, windows, result"),
            ("networks", "logits and class in one pass"),
            ("evaluation", "compared with its reference"),
            ("report", "slices, numbers, evidence"),
        ),
    ),
    Way(
        "A class label",
        GREEN,
        (
            ("paths", "preprocessed, then raw folder"),
            ("formats", "JSON or CSV read and checked"),
            ("data", "splits stratified by class"),
            ("training", "sampler, weights, class loss"),
            ("evaluation", "truth of the class metrics"),
        ),
    ),
    Way(
        "A checkpoint",
        ORANGE,
        (
            ("upstream", "nnU-Net's trainer and its keys"),
            ("training", "best, best class, final"),
            ("formats", "written whole, read strictly"),
            ("networks", "U-Net and head built from it"),
            ("inference", "folds loaded and averaged"),
            ("probe", "its features scored"),
        ),
    ),
    Way(
        "A prediction folder",
        VERMILION,
        (
            ("inference", "a case complete or not at all"),
            ("formats", "class files, tables, manifest"),
            ("evaluation", "metrics, calibration"),
            ("report", "read once, then drawn"),
            ("cli", "tables and exit code"),
        ),
    ),
)


def read_layers(pyproject: Path = PYPROJECT) -> list[list[str]]:
    """Rooms of each layer of the import contract, highest first."""
    text = pyproject.read_text(encoding="utf-8")
    (listed,) = re.findall(r"^layers = \[(.*?)^\]", text, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r'"(.+?)"', listed)
    return [[name.strip().removeprefix("nnunet_3dct.") for name in line.split("|")] for line in lines]


def draw_rooms(layers: Sequence[Sequence[str]], ways: Sequence[Way] = WAYS) -> Figure:
    """A row for each room, grouped by layer, and a column for each thing that goes through them."""
    rooms = [room for layer in layers for room in layer]
    height = {room: TOP + ROW * n + ROW / 2 for n, room in enumerate(rooms)}
    sheet = Sheet(LEFT + ROOM_WIDTH + 16 + COLUMN * len(ways), TOP + ROW * len(rooms) + 36)
    sheet.text(LEFT, 24, "Rooms of nnunet_3dct, and what goes through them", 15, align="left", bold=True)
    bottom = TOP + ROW * len(rooms)
    sheet.line([(16, TOP + 4), (16, bottom - 4)], GREY)
    sheet.text(
        LEFT, 46, "A room imports those below its line, never those above or beside it.", 10.5, GREY, align="left"
    )
    for layer in layers:
        top = height[layer[0]] - ROW / 2
        if layer is not layers[0]:
            sheet.line([(LEFT, top), (sheet.width - 10, top)], PALE, arrow=False, width=0.8)
        for room in layer:
            y = height[room]
            sheet.box(LEFT, y - 20, ROOM_WIDTH, 40, INK, fill=0.05)
            sheet.text(LEFT + 10, y - 8, room, 12, align="left", bold=True)
            sheet.text(LEFT + 10, y + 9, CAPTIONS[room], 9.5, GREY, align="left", width=ROOM_WIDTH - 20)
    for n, way in enumerate(ways):
        _draw_way(sheet, way, LEFT + ROOM_WIDTH + 30 + COLUMN * n, height)
    sheet.text(LEFT, bottom + 18, "Numbers are the order in time.", 10, GREY, align="left")
    return sheet.figure


def _draw_way(sheet: Sheet, way: Way, x: float, height: dict[str, float]) -> None:
    ys = [height[room] for room, _ in way.stops]
    sheet.line([(x, min(ys)), (x, max(ys))], way.colour, arrow=False, width=2.4)
    sheet.text(x - 9, TOP - 10, way.title, 12.5, way.colour, align="left", bold=True)
    for number, (room, text) in enumerate(way.stops, start=1):
        y = height[room]
        sheet.box(x - 9, y - 9, 18, 18, way.colour, fill=1.0)
        artist = sheet.axes.text(
            x, y, str(number), size=8, color="white", ha="center", va="center_baseline", weight="bold", zorder=4
        )
        artist.set_in_layout(False)
        sheet.text(x + 16, y, text, 10, align="left", width=COLUMN - 38)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", type=Path, default=HERE / "rooms.svg", help="SVG or PNG; default: %(default)s")
    args = parser.parse_args(argv)
    layers = read_layers()
    described = "; ".join(f"{way.title}: " + ", ".join(f"{room} ({text})" for room, text in way.stops) for way in WAYS)
    rooms = "; ".join(", ".join(layer) for layer in layers)
    save(
        draw_rooms(layers),
        args.o,
        "Rooms of nnunet_3dct",
        f"From the highest layer to the lowest: {rooms}. {described}.",
    )


if __name__ == "__main__":
    main()
