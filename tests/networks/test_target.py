"""The target in patches and logits, with nnU-Net's own label manager."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.networks.target import TargetLabels

PLAIN = {"background": 0, "organ": 1, "lesion": 2, "duct": 3}
REGIONS = {"background": 0, "whole": [1, 2], "lesion": 2}
IGNORE = {"ignore": 4}


def plain_labels(ignore: bool = False) -> LabelManager:
    return LabelManager({**PLAIN, **(IGNORE if ignore else {})}, None)


def region_labels() -> LabelManager:
    return LabelManager(REGIONS, [1, 2])


def patches(shape: tuple[int, ...], values: list[list[int]]) -> np.ndarray:
    """A target ``(B, 1, *shape)`` of background with one voxel of each of ``values[b]`` in sample b."""
    target = np.zeros((len(values), 1, *shape), dtype=np.int16)
    for sample, labels in zip(target, values, strict=True):
        sample.reshape(-1)[np.random.default_rng(0).permutation(sample.size)[: len(labels)]] = labels
    return target


# which labels


@pytest.mark.parametrize("ignore", [False, True])
def test_all_foreground_is_the_default_and_leaves_ignore_out(ignore):
    assert TargetLabels(plain_labels(ignore)).labels == (1, 2, 3)


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [((2,), (2,)), (("lesion",), (2,)), ((3, "organ"), (1, 3)), (("lesion", 2), (2,))],
)
def test_labels_are_given_as_ids_or_names(wanted, labels):
    assert TargetLabels(plain_labels(), wanted).labels == labels


@pytest.mark.parametrize("wanted", [(0,), ("background",), (4,), ("ignore",), (-1,), ("tumour",), (2, 9)])
def test_label_that_cannot_be_a_target_is_named_with_the_known_ones(wanted):
    with pytest.raises(SettingsError) as caught:
        TargetLabels(plain_labels(ignore=True), wanted)
    text = str(caught.value)
    assert text.startswith("NNUNETV2_MT_TARGET_LABELS: expected foreground labels of dataset.json")
    assert "organ=1, lesion=2, duct=3" in text
    assert text.endswith(f"found {wanted[-1]!r}.")


def test_region_is_given_by_its_name_and_holds_all_its_labels():
    assert TargetLabels(region_labels(), ("whole",)).labels == (1, 2)
    assert TargetLabels(region_labels()).labels == (1, 2)


def test_labels_that_make_up_no_region_are_refused():
    with pytest.raises(SettingsError, match=r"make up a region.*found \[1\].*\(1, 2\), 2"):
        TargetLabels(region_labels(), (1,))


# in a training patch


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6)])
@pytest.mark.parametrize("wanted", [None, (2,), ("organ", "duct")])
@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.float32])
def test_in_patch_equals_a_search_in_numpy(shape, wanted, dtype):
    target = patches(shape, [[], [1], [2], [3], [1, 2], [4], [2, 4], [1, 3, 4]])
    finder = TargetLabels(plain_labels(ignore=True), wanted)
    expected = [any(value in finder.labels for value in sample.flat) for sample in target]
    found = finder.in_patch(torch.from_numpy(target).to(dtype))
    assert found.dtype == torch.bool
    assert found.tolist() == expected
    assert set(expected) == {True, False}  # else the samples would tell nothing


@pytest.mark.parametrize(("wanted", "expected"), [(None, [False, True, True]), (("lesion",), [False, False, True])])
def test_in_patch_reads_one_hot_regions(wanted, expected):
    labels = patches((4, 5, 6), [[], [1], [1, 2]])
    regions = np.concatenate([labels >= 1, labels == 2], axis=1)
    finder = TargetLabels(region_labels(), wanted)
    for dtype in (torch.bool, torch.float32):
        assert finder.in_patch(torch.from_numpy(regions).to(dtype)).tolist() == expected


def test_ignore_channel_behind_the_regions_is_not_target():
    finder = TargetLabels(LabelManager({**REGIONS, "ignore": 3}, [1, 2]))
    target = torch.zeros(1, 3, 2, 2, 2)
    target[:, 2] = 1
    assert finder.in_patch(target).tolist() == [False]


# in predicted logits


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6)])
@pytest.mark.parametrize("wanted", [None, (2,), ("organ", "duct")])
def test_voxels_counts_the_arg_max_as_numpy_does(shape, wanted):
    logits = np.random.default_rng(1).normal(size=(3, 4, *shape)).astype(np.float32)
    finder = TargetLabels(plain_labels(), wanted)
    expected = [int(np.isin(sample.argmax(0), finder.labels).sum()) for sample in logits]
    found = finder.voxels(torch.from_numpy(logits))
    assert found.dtype == torch.float32
    assert found.tolist() == expected
    assert all(0 < count < np.prod(shape) for count in expected)


@pytest.mark.parametrize(("wanted", "channels"), [(None, [0, 1]), (("lesion",), [1]), (("whole",), [0, 1])])
def test_voxels_counts_each_voxel_of_overlapping_regions_once(wanted, channels):
    logits = np.random.default_rng(2).normal(size=(3, 2, 4, 5, 6)).astype(np.float32)
    expected = [int((sample[channels] > 0).any(0).sum()) for sample in logits]
    assert TargetLabels(region_labels(), wanted).voxels(torch.from_numpy(logits)).tolist() == expected


def test_voxels_agrees_with_the_segmentation_of_nnunet():
    logits = torch.randn((1, 4, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    manager = plain_labels()
    segmentation = manager.convert_logits_to_segmentation(logits[0])
    assert TargetLabels(manager, (2,)).voxels(logits).item() == int((segmentation == 2).sum())
