from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.dicom.series import find_series
from nnunet_3dct.dicom.volume import DicomVolume, read_series
from nnunet_3dct.formats.geometry import geometry_differences, image_geometry
from tests.dicom.makers import axis_orientations, expected_image, oblique, phantom, write_series

ORIENTATIONS = {**axis_orientations(), "oblique": oblique()}


def read(folder: Path) -> DicomVolume:
    """The only series of a folder."""
    (series,) = find_series(folder).series
    return read_series(series)


def by_itk(folder: Path) -> SimpleITK.Image:
    """An independent reading of the only series of a folder."""
    (uid,) = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    return SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))


def assert_same(found: SimpleITK.Image, expected: SimpleITK.Image) -> None:
    assert not geometry_differences(image_geometry(found), image_geometry(expected))
    assert np.array_equal(SimpleITK.GetArrayFromImage(found), SimpleITK.GetArrayFromImage(expected))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_orientation_is_read_as_made_and_as_itk_reads_it(tmp_path: Path, name: str, descending: bool) -> None:
    write_series(tmp_path, phantom(), orientation=ORIENTATIONS[name], descending=descending)
    volume = read(tmp_path)
    assert_same(volume.image, expected_image(phantom(), orientation=ORIENTATIONS[name]))
    assert_same(volume.image, by_itk(tmp_path))
    assert (volume.repairs, volume.problems, volume.on_source_grid) == ([], [], True)
    assert volume.image.GetPixelID() == SimpleITK.sitkInt16
