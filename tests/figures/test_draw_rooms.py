"""The picture of the rooms shows those of the import contract, and the committed one is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from figures import draw_rooms
from figures.draw_rooms import CAPTIONS, WAYS, read_layers
from tests.figures.drawn import outside, touching, words

PACKAGE = Path(draw_rooms.HERE).parent / "nnunet_3dct"
ROOMS = [room for layer in read_layers() for room in layer]


def test_every_room_of_the_package_is_in_the_contract_and_has_a_caption() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert set(ROOMS) == folders | modules == set(CAPTIONS)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.title)
def test_every_stop_is_a_room(way: draw_rooms.Way) -> None:
    assert {room for room, _ in way.stops} <= set(ROOMS)


def test_words_neither_touch_nor_reach_over_the_edge() -> None:
    figure = draw_rooms.draw_rooms(read_layers())
    assert not touching(figure)
    assert not outside(figure)
    plt.close(figure)


def test_committed_picture_is_the_one_that_is_drawn_now(tmp_path: Path) -> None:
    draw_rooms.main(["-o", str(tmp_path / "rooms.svg")])
    assert words(tmp_path / "rooms.svg") == words(draw_rooms.HERE / "rooms.svg"), "run python -m figures.draw_rooms"
