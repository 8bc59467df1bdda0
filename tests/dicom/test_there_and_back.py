"""Results that this package writes are read by it as what they were, on the slices of the series and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.dicom.algorithm import Algorithm
from nnunet_3dct.dicom.cases import cases_of
from nnunet_3dct.dicom.findings import segments_of
from nnunet_3dct.dicom.references import read_masks
from nnunet_3dct.dicom.results import write_dicom_seg
from nnunet_3dct.dicom.series import find_series
from nnunet_3dct.dicom.source import read_source
from nnunet_3dct.dicom.structures import write_structures
from tests.dicom.makers import (
    axis_orientations,
    enhanced_dataset,
    oblique,
    phantom,
    phantom_labels,
    save_one,
    write_series,
)

ORIENTATIONS = {**axis_orientations(), "oblique": oblique()}
NAMES = {"background": 0, "pancreas": 1, "lesion": 2}


def label_image(like: SimpleITK.Image, labels: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(labels)
    image.CopyInformation(like)
    return image


def check(folder: Path, labels: np.ndarray) -> None:
    """Write both kinds of results for the only series of a folder, and read them."""
    (case,) = cases_of(find_series(folder))
    volume = case.read()
    image = label_image(volume.image, labels)
    write_dicom_seg(image, case.files, folder / "seg.dcm", NAMES)
    source = read_source(case.files)
    write_structures(folder / "rt.dcm", source, image, segments_of(image, NAMES), Algorithm())
    (case,) = cases_of(find_series(folder))
    assert sorted(masks.kind for masks in case.masks) == ["segmentation", "structures"]
    for masks in case.masks:
        reference = read_masks(masks, volume)
        assert reference.repairs == []
        for name, value in list(NAMES.items())[1:]:
            assert np.array_equal(reference.masks[name], labels == value), (masks.kind, name)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_orientation_comes_back_voxel_for_voxel(tmp_path: Path, name: str) -> None:
    write_series(tmp_path, phantom(), orientation=ORIENTATIONS[name], descending=True)
    check(tmp_path, phantom_labels())


def test_enhanced_images_come_back_voxel_for_voxel(tmp_path: Path) -> None:
    save_one(enhanced_dataset(phantom(), order=[3, 0, 1, 5, 4, 2], orientation=oblique()), tmp_path / "a.dcm")
    check(tmp_path, phantom_labels())
