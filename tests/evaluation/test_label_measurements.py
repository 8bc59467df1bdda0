"""Measurements of masks against SimpleITK, scikit-image, SciPy and brute force."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.measure import find_contours
from skimage.measure import label as connected

from nnunet_3dct.evaluation.diameter import longest_diameter
from nnunet_3dct.evaluation.label_measurements import measure_structures
from tests.utils import write_volume

SPACING = (0.7, 0.9, 2.5)  # x, y, z
DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "lesion": 2, "duct": 3}}


def blobs(seed: int, shape: tuple[int, ...] = (9, 20, 24)) -> np.ndarray:
    """Labels 0, 1, 2 of random smooth blobs; several parts, some at the border."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (1, 2, 2))
    return (field > 0.5 * field.std()).astype(np.uint8) + (field > 1.5 * field.std())


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    labels = blobs(1)
    image = np.random.default_rng(2).integers(-200, 300, labels.shape).astype(np.int16)
    mask = write_volume(tmp_path / "case.nii.gz", labels, SPACING)
    return mask, write_volume(tmp_path / "case_0000.nii.gz", image, SPACING), labels, image


def test_volume_box_and_intensities_are_those_of_simpleitk(files: tuple) -> None:
    mask, image, *_ = files
    measured = measure_structures(mask, [image], DATASET, "case")
    shape, values = SimpleITK.LabelShapeStatisticsImageFilter(), SimpleITK.LabelStatisticsImageFilter()
    for name, labels in (("organ", (1,)), ("lesion", (2,)), ("whole_organ", (1, 2, 3))):
        whole = SimpleITK.ReadImage(str(mask))
        region = SimpleITK.GetImageFromArray(np.isin(SimpleITK.GetArrayFromImage(whole), labels).astype(np.uint8))
        region.CopyInformation(whole)
        shape.Execute(region)
        values.Execute(SimpleITK.ReadImage(str(image)), region)
        found = measured["structures"][name]
        assert found["voxels"] == shape.GetNumberOfPixels(1)
        assert found["volume_ml"] == pytest.approx(shape.GetPhysicalSize(1) / 1000)
        start, size = shape.GetBoundingBox(1)[:3], shape.GetBoundingBox(1)[3:]
        assert found["box"]["first"] == list(start)
        assert found["box"]["last"] == [a + n - 1 for a, n in zip(start, size, strict=True)]
        assert found["box"]["size_mm"] == pytest.approx([n * s for n, s in zip(size, SPACING, strict=True)])
        number = found["voxels"]
        assert found["mean"]["CT"] == pytest.approx(values.GetMean(1))
        assert found["sd"]["CT"] == pytest.approx(values.GetSigma(1) * np.sqrt((number - 1) / number))  # ITK: a sample
        assert found["touches_border"] is bool(shape.GetNumberOfPixelsOnBorder(1))
    assert measured["units"] == {"CT": "HU"} and measured["axes"] == "LPS"


def test_parts_are_those_of_scikit_image(files: tuple) -> None:
    mask, image, labels, _ = files
    measured = measure_structures(mask, [image], DATASET, "case")["structures"]
    assert measured["organ"]["parts"] == connected(labels == 1, connectivity=3, return_num=True)[1] > 1
    assert measured["whole_organ"]["parts"] == connected(labels > 0, connectivity=3, return_num=True)[1]


def test_structure_without_voxels_has_no_values(files: tuple) -> None:
    mask, image, *_ = files
    duct = measure_structures(mask, [image], DATASET, "case")["structures"]["duct"]
    assert duct == {
        "labels": [3], "voxels": 0, "volume_ml": 0.0, "mean": {"CT": None}, "sd": {"CT": None}, "box": None,
        "longest_diameter": None, "parts": 0, "touches_border": False,
    }  # fmt: skip


def by_brute_force(mask: np.ndarray, axis: int, spacing: tuple[float, ...]) -> float:
    """Longest distance between any two points of scikit-image's contours of one part of one slice."""
    pixel = np.delete(spacing, axis)
    longest = 0.0
    for plane in np.moveaxis(mask, axis, 0):
        parts = connected(plane, connectivity=2)
        for number in range(1, parts.max() + 1):
            contours = find_contours(np.pad(parts == number, 1).astype(float), 0.5, fully_connected="high")
            longest = max(longest, *(pdist(points * pixel).max() for points in [np.concatenate(contours)]))
    return longest


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_longest_diameter_is_that_of_all_pairs_of_contour_points(seed: int, axis: int) -> None:
    mask = blobs(seed) > 0
    found = longest_diameter(mask, axis, SPACING[::-1])
    assert found is not None
    assert found.length == pytest.approx(by_brute_force(mask, axis, SPACING[::-1]))
    pixel = np.delete(SPACING[::-1], axis)
    assert np.linalg.norm((np.array(found.ends[0]) - found.ends[1]) * pixel) == pytest.approx(found.length)


def test_longest_diameter_of_simple_shapes() -> None:
    one = np.zeros((3, 5, 5), bool)
    assert longest_diameter(one, 0, (1, 1, 1)) is None
    one[1, 2, 2] = True
    assert longest_diameter(one, 0, (5, 0.5, 0.8)).length == pytest.approx(0.8)
    rows = np.ones((1, 3, 40), bool)
    assert longest_diameter(rows, 0, (1, 1, 1)).length == pytest.approx(np.hypot(40, 2))
    y, x = np.mgrid[-40:41, -40:41]
    disc = (np.hypot(y, x) <= 30)[None]
    assert longest_diameter(disc, 0, (1, 1, 1)).length == pytest.approx(60, abs=1.2)
    apart = np.zeros((1, 5, 60), bool)
    apart[0, 2, :4] = apart[0, 2, 50:] = True
    assert longest_diameter(apart, 0, (1, 1, 1)).length == pytest.approx(10)  # not across two lesions


AXES = ["".join(code) for order in permutations(("RL", "AP", "IS")) for code in product(*order)]


@pytest.mark.parametrize("axes", AXES)
def test_measurements_do_not_depend_on_how_the_volume_is_stored(files: tuple, tmp_path: Path, axes: str) -> None:
    mask, image, *_ = files
    expected = measure_structures(mask, [image], DATASET, "case")["structures"]
    stored = []
    for path in (mask, image):
        stored.append(tmp_path / f"{axes}_{path.name}")
        SimpleITK.WriteImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), axes), str(stored[-1]))
    turned = measure_structures(stored[0], stored[1:], DATASET, "case")
    assert turned["axes"] == axes
    volume, original = (SimpleITK.ReadImage(str(path)) for path in (stored[0], mask))
    for name in ("organ", "lesion", "whole_organ"):
        found, same = turned["structures"][name], expected[name]
        for key in ("voxels", "parts", "touches_border"):
            assert found[key] == same[key]
        assert found["longest_diameter"]["mm"] == pytest.approx(same["longest_diameter"]["mm"])
        assert found["mean"]["CT"] == pytest.approx(same["mean"]["CT"])
        corners = [
            sorted([*map(tuple, np.sort([v.TransformIndexToPhysicalPoint(m["box"][k]) for k in ("first", "last")], 0))])
            for v, m in ((volume, found), (original, same))
        ]
        np.testing.assert_allclose(*corners, atol=1e-4)
        ends = [volume.TransformContinuousIndexToPhysicalPoint(end) for end in found["longest_diameter"]["ends"]]
        assert np.linalg.norm(np.subtract(*ends)) == pytest.approx(found["longest_diameter"]["mm"], abs=1e-4)
        assert ends[0][2] == pytest.approx(ends[1][2], abs=1e-4)  # in one axial plane


def test_oblique_volume_is_measured_in_the_slices_closest_to_axial(tmp_path: Path) -> None:
    labels = np.zeros((4, 6, 30), np.uint8)
    labels[:, 2, 3:25] = 1
    tilt = np.deg2rad(20)
    direction = (1, 0, 0, 0, np.cos(tilt), -np.sin(tilt), 0, np.sin(tilt), np.cos(tilt))
    paths = [write_volume(tmp_path / name, labels, (1, 1, 9), direction=direction) for name in ("m.nii", "m_0000.nii")]
    organ = measure_structures(paths[0], paths[1:], DATASET, "case")["structures"]["organ"]
    assert organ["longest_diameter"]["mm"] == pytest.approx(22)


def test_regions_and_several_channels(files: tuple, tmp_path: Path) -> None:
    mask, image, labels, values = files
    second = write_volume(tmp_path / "case_0001.nii.gz", values.astype(np.float32) / 10, SPACING)
    dataset = {
        "channel_names": {"0": "CT", "1": "T2"},
        "labels": {"background": 0, "organ": [1, 2], "lesion": 2, "ignore": 3},
    }
    measured = measure_structures(mask, [image, second], dataset, "case")
    assert set(measured["structures"]) == {"organ", "lesion", "whole_organ"}
    assert measured["structures"]["organ"]["voxels"] == np.count_nonzero(labels)
    assert measured["structures"]["organ"]["mean"]["T2"] == pytest.approx(values[labels > 0].mean() / 10, rel=1e-5)
    assert measured["units"] == {"CT": "HU", "T2": None}


def test_picture_is_not_measured_and_says_so(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "case.png", np.ones((4, 5), np.uint8))
    assert measure_structures(path, [path], DATASET, "case")["not_measured"] == "the image has 2 axes, expected 3"
