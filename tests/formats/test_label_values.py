from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.label_values import Rounding, check_label_values, whole_labels
from tests.utils import label_array, scale_labels, write_volume


@pytest.mark.parametrize("value", [1.0000153, 0.99996, 1.0039, 1.0099, 0.9901])
def test_value_within_a_hundredth_is_the_label(value: float) -> None:
    labels, rounding = whole_labels(np.array([0, value, 2, 2]), [0, 1, 2], "c")
    assert labels.tolist() == [0, 1, 2, 2]
    assert rounding == Rounding(1, int(value < 1), value)


@pytest.mark.parametrize("value", [1.011, 0.98, 0.5, np.nan, np.inf, 3, -1])
def test_value_further_away_is_refused(value: float) -> None:
    with pytest.raises(ImageError, match=r"^c: expected the labels \[0, 1, 2\].*\(1 voxels\)"):
        whole_labels(np.array([0, value, 2]), [0, 1, 2], "c")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_whole_labels_stay_as_they_are(dtype: type) -> None:
    values = label_array().astype(dtype)
    labels, rounding = whole_labels(values, [0, 1, 2], "c")
    assert labels is values and rounding is None


def test_advice_suits_the_value() -> None:
    with pytest.raises(ImageError, match=r"found also 7 \(2 voxels\).*add the label to dataset\.json"):
        whole_labels(np.array([0, 7, 7]), [0, 1], "c")
    with pytest.raises(ImageError, match=r"0\.5 \(1 voxels\).*nearest neighbour") as error:
        whole_labels(np.array([0, 0.5, 1.0000153, 7]), [0, 1], "c")
    assert "add the label" not in str(error.value) and "1.0000153" not in str(error.value)


@pytest.mark.parametrize("reader", [None, "SimpleITKIO", "NibabelIO"])
@pytest.mark.parametrize(("slope", "dtype"), [(1 / 127.5, np.uint8), (2 / 32767, np.int16)])
def test_scaled_label_file_passes_and_what_was_rounded_is_counted(
    tmp_path: Path, slope: float, dtype: type, reader: str | None
) -> None:
    path = scale_labels(write_volume(tmp_path / "c.nii.gz", label_array()), slope, dtype)
    read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    assert (read != np.rint(read)).any()  # the input is what it claims to be
    rounding = check_label_values(path, [0, 1, 2], "c", reader=reader)
    assert rounding and rounding.voxels == np.count_nonzero(label_array() == 1) and rounding.below == 0


def test_difference_that_single_precision_does_not_keep_is_none(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "c.nii.gz", label_array() * (1 - 1e-12))
    assert check_label_values(path, [0, 1, 2], "c") is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_a_label_file_is_refused_though_itk_reads_zero(tmp_path: Path, value: float) -> None:
    labels = label_array().astype(np.float32)
    labels[0, 0, :3] = value
    path = write_volume(tmp_path / "c.nii.gz", labels)
    with pytest.raises(ImageError, match=r"c\.nii\.gz: expected whole labels, found NaN or infinity in 3 voxels"):
        check_label_values(path, [0, 1, 2], "c")
