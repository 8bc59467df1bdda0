"""Turning volumes, against SimpleITK's own."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.report.orientation import orient
from tests.utils import write_volume

TURNS = [np.diag(signs)[list(order)] for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)]


def oblique(degrees: float) -> np.ndarray:
    """A rotation about the patient's long axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@pytest.mark.parametrize("direction", [*TURNS, *(oblique(a) for a in (20, -30, 110, 200))])
def test_volume_is_turned_as_simpleitk_turns_it(direction: np.ndarray) -> None:
    image = SimpleITK.GetImageFromArray(np.random.default_rng(0).integers(0, 100, (3, 4, 5)))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetDirection(direction.ravel().tolist())
    expected = SimpleITK.DICOMOrient(image, "LPS")
    properties = {"spacing": image.GetSpacing()[::-1], "sitk_stuff": {"direction": image.GetDirection()}}
    found = orient(SimpleITK.GetArrayFromImage(image), properties)
    assert np.array_equal(found.array, SimpleITK.GetArrayFromImage(expected))
    assert found.spacing == expected.GetSpacing()[::-1]


def test_all_readers_of_nnunet_show_the_same_side_of_the_patient(tmp_path: Path) -> None:
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

    array = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(np.int16)
    path = write_volume(tmp_path / "a.nii.gz", array, (0.7, 0.8, 2.5), direction=np.diag([-1.0, 1.0, -1.0]).ravel())
    shown = []
    for reader in (SimpleITKIO(), SimpleITKIOWithReorient(), NibabelIO(), NibabelIOWithReorient()):
        values, properties = reader.read_images((str(path),))
        shown.append(orient(values[0], properties))
    for other in shown[1:]:
        assert np.array_equal(shown[0].array, other.array)
        assert shown[0].spacing == pytest.approx(other.spacing)
    assert np.array_equal(shown[0].array, array[::-1, :, ::-1])
