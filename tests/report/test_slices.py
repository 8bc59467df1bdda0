"""Slices: the way round that radiologists expect, the right proportions, outlines on the borders of voxels."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from nnunet_3dct.report.outlines import draw_outlines, outline_lines, svg_path
from nnunet_3dct.report.rasters import slice_png
from nnunet_3dct.report.slices import PLANES, find_target
from tests.report.inputs import SHAPE, SPACING, Inputs

STRUCTURES = {"organ": (1,), "lesion": (2,)}


def decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def points(path: str) -> np.ndarray:
    return np.array([[float(v) for v in pair.split()] for pair in re.findall(r"[\d.]+ [\d.]+", path)])


def test_flipped_files_give_the_same_pictures(tmp_path):
    straight, turned = (Inputs(tmp_path / name).write() for name in ("straight", "turned"))
    for case in turned.cases:
        for folder, name in (("labels", case), ("predictions", case), ("images", f"{case}_0000")):
            turned.flip(folder, name)
    pictures = [re.findall(r'<(?:path|image) [^>]*"', inputs.html()) for inputs in (straight, turned)]
    assert pictures[0] == pictures[1] and len(pictures[0]) > 60


@pytest.mark.parametrize("folders", [("images",), ("images", "predictions")])
def test_a_flipped_image_beside_an_unflipped_volume_is_no_fit(inputs, folders):
    for folder in folders:
        inputs.flip(folder, "case_1" + ("_0000" if folder == "images" else ""))
    with pytest.raises(Exception, match=r"case_1.*origin"):
        inputs.html()


def test_patient_stands_upright_with_the_right_side_at_the_left():
    volume = np.zeros(SHAPE)  # (Z, Y, X): to the head, to the back, to the patient's left
    z, y, x = 12, 3, 2  # near the head, in front, on the right
    volume[z, y, x] = 1
    seen = {plane.name: np.argwhere(plane.cut(volume, (z, y, x)[plane.axis]))[0] for plane in PLANES}
    rows = SHAPE[0] - 1
    assert seen["axial"].tolist() == [y, x]  # front at the top, right at the left
    assert seen["coronal"].tolist() == [rows - z, x]  # head at the top
    assert seen["sagittal"].tolist() == [rows - z, y]  # front at the left
    assert [plane.sides for plane in PLANES] == [tuple("ALPR"), tuple("HLFR"), tuple("HPFA")]


def test_pictures_have_the_proportions_of_the_patient(inputs):
    html = inputs.html(max_cases=1)
    x, y, z = (spacing * size for spacing, size in zip(SPACING, SHAPE[::-1], strict=True))
    for width, height in ((x, y), (x, z), (y, z)):
        assert f'viewBox="0 0 {round(width, 1)} {round(height, 1)}" role="img"' in html


def test_slices_go_through_the_largest_area_of_the_rarest_structure():
    volume = np.zeros(SHAPE, np.uint8)
    volume[1:13, 2:20, 2:20] = 1
    volume[4, 5:12, 6:14] = volume[5, 6:8, 7:9] = 2
    volume[10, 5, 15:17] = 2  # a smaller part
    target = find_target(STRUCTURES, volume)
    assert (target.structure, target.position) == ("lesion", (4, 6, 7))


def test_a_structure_that_only_the_reference_has_is_shown():
    prediction = np.ones(SHAPE, np.uint8)
    reference = prediction.copy()
    reference[9, 3:5, 3:5] = 2
    assert find_target(STRUCTURES, prediction, reference).position[0] == 9


def test_without_any_structure_the_middle_is_shown():
    target = find_target(STRUCTURES, np.zeros(SHAPE, np.uint8))
    assert (target.structure, target.position) == (None, (7, 11, 13))


def test_outline_runs_between_the_voxels():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    found = points(svg_path(outline_lines(mask, (2.0, 1.0))))
    assert found.min(axis=0).tolist() == [2.0, 2.0]  # x, y in mm
    assert found.max(axis=0).tolist() == [5.0, 6.0]


def test_outline_at_the_border_of_the_picture_is_closed():
    path = svg_path(outline_lines(np.ones((3, 3), bool), (1.0, 1.0)))
    assert path.endswith("Z") and points(path).max() == 3.0


def test_shared_border_is_drawn_once_by_the_later_structure():
    labels = np.ones((8, 8), np.uint8)
    labels[2:4, 2:4] = 2
    organ, lesion = draw_outlines(labels, STRUCTURES, (1.0, 1.0), reference=True)
    assert (organ.structure, lesion.structure) == ("organ", "lesion")
    assert organ.path.count("M") == 1 and points(organ.path).min() == 0  # no hole
    assert points(lesion.path).tolist()
    assert (organ.area, lesion.area) == (pytest.approx(0.60), pytest.approx(0.04))


def test_the_rarest_structure_of_the_case_is_drawn_last_even_where_it_is_larger():
    volume = np.zeros(SHAPE, np.uint8)
    volume[2:12, 2:20, 2:20] = 1
    volume[6:8, 3:19, 3:19] = 2  # leaves a rim of the organ
    assert find_target(STRUCTURES, volume).by_size == ("organ", "lesion")


def test_window_maps_its_ends_to_black_and_white():
    values = np.array([[-1000, -160, 40, 240, 3000]])
    assert decode(slice_png(values, (-160.0, 240.0))).tolist() == [[0, 0, 128, 255, 255]]
    assert decode(slice_png(np.array([[np.nan, 240.0]]), (-160.0, 240.0))).tolist() == [[0, 255]]


def test_large_slices_are_reduced():
    assert decode(slice_png(np.zeros((2000, 300)), (-160.0, 240.0))).shape == (480, 300)
