"""Parts of the check against independent references."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage
from skimage.measure import regionprops

from nnunet_3dct.data.checks.duplicates import equal_pairs
from nnunet_3dct.data.checks.intensities import looks_raw
from nnunet_3dct.data.checks.measured import Intensities, find_structures
from nnunet_3dct.data.checks.outliers import far_from_others
from nnunet_3dct.data.checks.plans import Configuration
from nnunet_3dct.data.checks.signature import GRID, averaging, signature
from nnunet_3dct.data.checks.targets import DOUBTFUL, DOUBTFUL_VOLUME, resampled_voxels
from tests.data.checks.makers import ct

UPRIGHT = (1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.mark.parametrize("size", [1, 3, 20, 59, 181])
def test_averaging_is_the_mean_over_equal_boxes(size: int) -> None:
    values = np.random.default_rng(0).normal(size=size)
    fine = np.repeat(values, GRID)  # every box then holds whole pieces
    np.testing.assert_allclose(averaging(size) @ values, fine.reshape(GRID, size).mean(axis=1), atol=1e-5)


@pytest.mark.parametrize("axes", ["".join(c) for o in permutations(("RL", "AP", "IS")) for c in product(*o)])
def test_signature_is_the_same_in_every_orientation(axes: str) -> None:
    image = SimpleITK.GetImageFromArray(ct(0)[0])
    turned = SimpleITK.DICOMOrient(image, axes)
    found = signature(SimpleITK.GetArrayFromImage(turned), turned.GetDirection())
    assert float((found * signature(ct(0)[0], UPRIGHT)).sum()) == pytest.approx(1, abs=1e-3)


def test_signature_of_a_constant_image_is_nothing() -> None:
    assert not signature(np.full((4, 5, 6), 7, np.int16), UPRIGHT).any()
    assert equal_pairs([signature(np.full((4, 5, 6), v, np.int16), UPRIGHT) for v in (0, 1)]) == []


def test_no_two_of_many_images_are_equal_and_every_copy_is_found() -> None:
    images = [ct(seed)[0] for seed in range(24)]
    signatures = [signature(image, UPRIGHT) for image in images]
    assert equal_pairs(signatures) == []
    copies = [signature(images[n][:, ::-1].astype(np.float32) * 2 + 100, UPRIGHT) for n in (3, 7)]
    assert equal_pairs([*signatures, *copies]) == [(3, 24, "mirrored or turned"), (7, 25, "mirrored or turned")]


def test_structures_are_those_of_scikit_image() -> None:
    labels = ndimage.zoom(np.random.default_rng(0).integers(0, 5, (4, 5, 6)), 3, order=0)
    labels[labels == 3] = 0
    found = find_structures(labels.astype(np.float32))
    assert list(found) == [1, 2, 4]
    for region in regionprops(labels):
        structure = found[region.label]
        assert structure.voxels == region.area
        assert (*structure.first, *(n + 1 for n in structure.last)) == region.bbox
        assert structure.size == tuple(region.bbox[3 + a] - region.bbox[a] for a in range(3))


def test_what_is_taken_for_safe_never_vanishes_in_nnunets_resampling() -> None:
    """The limits below which a structure is resampled to see whether it vanishes."""
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(200):
        spacing, target = rng.uniform(0.5, 2, 3), rng.uniform(0.8, 4, 3)
        radii = rng.uniform(1, 3.5, 3) * target / spacing / 2
        centre = rng.uniform(9, 11, 3)
        at = np.indices((20, 20, 20)) - centre.reshape(3, 1, 1, 1)
        mask = (at**2 / (radii**2).reshape(3, 1, 1, 1)).sum(axis=0) <= 1
        if not mask.any():
            continue
        size = np.array(find_structures(mask)[1].size)
        volume = mask.sum() * np.prod(spacing) / np.prod(target)
        if min(size * spacing / target) > DOUBTFUL and volume > DOUBTFUL_VOLUME:
            seen += 1
            assert resampled_voxels(mask, spacing.tolist(), target.tolist()) > 0, (spacing, target, size)
    assert seen > 20


def test_single_voxel_vanishes_at_three_times_its_size() -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[5, 6, 6] = True
    assert resampled_voxels(mask, (1, 1, 1), (3, 3, 3)) == 0
    mask[3:9, 3:9, 3:9] = True
    assert resampled_voxels(mask, (1, 1, 1), (3, 3, 3)) == 8


def test_planned_axes_are_those_of_the_image() -> None:
    turned = Configuration("p", "3d_fullres", (40, 128, 160), 2, (3.0, 0.8, 0.7), (2, 0, 1))
    assert turned.spacing_of_image_axes((1.0, 2.0, 3.0)) == (0.8, 0.7, 3.0)
    assert turned.patch_of_image_axes() == (128, 160, 40)
    flat = Configuration("p", "2d", (128, 160), 12, (0.8, 0.7), (2, 0, 1))
    assert flat.spacing_of_image_axes((1.0, 2.0, 3.0)) == (0.8, 0.7, 3.0)
    assert flat.patch_of_image_axes() == (128, 160, 1)


def test_few_values_and_missing_ones_are_never_far() -> None:
    assert not far_from_others(np.array([1.0, 1.0, 1.0, 9.0]), 0.5).any()
    far = far_from_others(np.array([1.0, 1.0, 1.0, 1.0, np.nan, 9.0]), 0.5)
    assert far.tolist() == [False, False, False, False, False, True]


@pytest.mark.parametrize(("median", "p99", "raw"), [(1024, 1200, True), (24, 1196, True), (30, 300, False)])
def test_stored_values_without_intercept_are_raw_however_much_air_there_is(median: int, p99: int, raw: bool) -> None:
    values = Intensities(0, 1400, 500, 300, 5, median, p99, 0.0001, 0.0001, 0.001, True, 0, 60)
    assert looks_raw(values) is raw
