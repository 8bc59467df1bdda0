"""RT Structure Set: the outlines hold the voxels of the mask, in every orientation, with holes and single pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from matplotlib.path import Path as Polygon

from nnunet_3dct.dicom.algorithm import Algorithm
from nnunet_3dct.dicom.findings import segments_of
from nnunet_3dct.dicom.outlines import outlines
from nnunet_3dct.dicom.source import read_source
from nnunet_3dct.dicom.structures import write_structures
from nnunet_3dct.errors import ImageError
from tests.dicom import makers, readers

NAMES = {"background": 0, "pancreas": 1, "lesion": 2, "spleen": 3}
ORIENTATIONS = {**makers.axis_orientations(), "oblique": makers.oblique()}


def write(path: Path, files: list[Path], image: SimpleITK.Image) -> pydicom.Dataset:
    write_structures(path, read_source(files), image, segments_of(image, NAMES), Algorithm())
    return pydicom.dcmread(path)


def filled(result: pydicom.Dataset, image: SimpleITK.Image) -> dict[str, np.ndarray]:
    """Masks by filling every outline, as its places in the patient say, on the grid of ``image``."""
    names = {item.ROINumber: item.ROIName for item in result.StructureSetROISequence}
    size = image.GetSize()
    pixels = np.stack(np.meshgrid(range(size[0]), range(size[1])), -1).reshape(-1, 2)
    masks = {}
    for region in result.ROIContourSequence:
        mask = np.zeros((size[2], size[1], size[0]), bool)
        for contour in region.ContourSequence:
            places = np.array(contour.ContourData, float).reshape(-1, 3)
            indices = np.array([image.TransformPhysicalPointToContinuousIndex(place) for place in places])
            plane = int(np.rint(indices[0, 2]))
            assert np.abs(indices[:, 2] - plane).max() < 1e-3
            inside = Polygon(indices[:, :2]).contains_points(pixels).reshape(size[1], size[0])
            assert not (mask[plane] & inside).any()
            mask[plane] |= inside
        masks[names[region.ReferencedROINumber]] = mask
    return masks


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_back_voxel_for_voxel(orientation: str, tmp_path: Path) -> None:
    directions = ORIENTATIONS[orientation]
    files = makers.write_series(tmp_path, makers.phantom(), orientation=directions)
    image = makers.expected_image(makers.phantom_labels(), orientation=directions)
    masks = filled(write(tmp_path / "rt.dcm", files[::-1], image), image)
    assert sorted(masks) == ["lesion", "pancreas"]
    for name, mask in masks.items():
        assert (mask == (makers.phantom_labels() == NAMES[name])).all()


def test_outlines_of_any_mask_hold_its_pixels_and_no_others() -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(range(12), range(15), indexing="ij"), -1).reshape(-1, 2)
    for _ in range(60):
        mask = rng.random((12, 15)) < rng.uniform(0.1, 0.98)
        times = np.zeros(mask.size, int)
        for line in outlines(mask):
            times += Polygon(line).contains_points(grid)
        assert (times.reshape(mask.shape) == mask).all()


def test_a_ring_is_cut_into_outlines_without_holes() -> None:
    ring = np.zeros((9, 9), bool)
    ring[1:8, 1:8] = True
    ring[3:6, 3:6] = False
    assert len(outlines(ring)) == 2
    assert len(outlines(~ring & np.pad(np.ones((7, 7), bool), 1))) == 1
    assert outlines(np.zeros((3, 3), bool)) == []


@pytest.mark.parametrize("enhanced", [False, True])
def test_structure_set_conforms_to_the_standard(enhanced: bool, tmp_path: Path) -> None:
    if enhanced:
        files = [makers.save_one(makers.enhanced_dataset(makers.phantom()), tmp_path / "image.dcm")]
    else:
        files = makers.write_series(tmp_path / "series", makers.phantom())
    result = write(tmp_path / "rt.dcm", files, makers.expected_image(makers.phantom_labels()))
    assert readers.conformance_problems(tmp_path / "rt.dcm") == []
    assert result.ApprovalStatus == "UNAPPROVED" and "RESEARCH USE" in result.StructureSetLabel
    assert result.PatientID == makers.Patient().number
    contour = result.ROIContourSequence[0].ContourSequence[0]
    assert ("ReferencedFrameNumber" in contour.ContourImageSequence[0]) == enhanced


def test_outlines_name_the_slice_they_lie_on(tmp_path: Path) -> None:
    files = makers.write_series(tmp_path, makers.phantom())
    result = write(tmp_path / "rt.dcm", files, makers.expected_image(makers.phantom_labels()))
    heights = {ds.SOPInstanceUID: float(ds.ImagePositionPatient[2]) for ds in map(pydicom.dcmread, files)}
    for region in result.ROIContourSequence:
        for contour in region.ContourSequence:
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            assert abs(float(contour.ContourData[2]) - heights[uid]) < 1e-3


def test_empty_segmentation_is_refused(tmp_path: Path) -> None:
    files = makers.write_series(tmp_path, makers.phantom())
    with pytest.raises(ImageError, match="expected a segment with voxels"):
        write(tmp_path / "rt.dcm", files, makers.expected_image(makers.phantom_labels() * 0))
