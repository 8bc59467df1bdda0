"""What we rely on of nnU-Net's preprocessing.

Values are written down or computed here by plain NumPy, so that a red test says what has changed upstream.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from nnunet_3dct import upstream
from tests import toy
from tests.upstream.covered import covers


@covers("compute_new_shape")
def test_new_shape_keeps_the_extent_in_mm() -> None:
    assert upstream.compute_new_shape((10, 20, 30), (3, 1, 1), (1.5, 2, 1)).tolist() == [20, 10, 30]


@covers("determine_do_sep_z_and_axis")
@pytest.mark.parametrize(
    ("force", "old", "new", "expected"),
    [
        (None, (5, 1, 1), (1, 1, 1), (True, 0)),
        (None, (1, 1, 1), (1, 1, 4), (True, 2)),
        (None, (2, 1, 1), (1, 1, 1), (False, None)),
        (None, (0.24, 1.25, 1.25), (1, 1, 1), (False, None)),
        (False, (5, 1, 1), (1, 1, 1), (False, None)),
        (True, (1, 2, 1), (1, 1, 1), (True, 1)),
    ],
)
def test_slices_are_resampled_apart_where_the_spacing_differs_threefold(
    force: bool | None, old: tuple[float, ...], new: tuple[float, ...], expected: tuple[bool, int | None]
) -> None:
    separate, axis = upstream.determine_do_sep_z_and_axis(force, old, new)
    assert (bool(separate), None if axis is None else int(np.ravel(axis)[0])) == expected


@covers("determine_do_sep_z_and_axis")
def test_threshold_of_separate_slices_is_a_keyword() -> None:
    separate, _ = upstream.determine_do_sep_z_and_axis(None, (5, 1, 1), (1, 1, 1), separate_z_anisotropy_threshold=6)
    assert not separate


@covers("resample_data_or_seg_to_shape")
def test_resampling_has_the_options_that_ours_stands_in_for_and_keeps_a_constant() -> None:
    parameters = inspect.signature(upstream.resample_data_or_seg_to_shape).parameters
    assert list(parameters)[:4] == ["data", "new_shape", "current_spacing", "new_spacing"]
    expected = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False}
    assert {name: parameters[name].default for name in expected} == expected
    assert "separate_z_anisotropy_threshold" in parameters
    found = upstream.resample_data_or_seg_to_shape(
        np.full((1, 4, 4, 4), 7.0, np.float32), (8, 4, 2), (2, 1, 1), (1, 1, 2), order=3
    )
    assert found.shape == (1, 8, 4, 2) and np.allclose(found, 7)


@covers("DefaultPreprocessor")
def test_preprocessing_crops_normalises_and_notes_what_undoes_it(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any]
) -> None:
    preprocessor = upstream.DefaultPreprocessor(verbose=False)
    image = np.zeros((1, *toy.SHAPE), np.float32)
    image[:, 2:14, 4:20, 4:20] = toy.toy_volume(0)[0][2:14, 4:20, 4:20]
    properties: dict[str, Any] = {"spacing": [1.0, 1.0, 1.0]}
    data, _, _ = preprocessor.run_case_npy(image, None, properties, plans_manager, configuration, dataset_json)
    assert data.shape == (1, 12, 16, 16)
    assert tuple(properties["shape_before_cropping"]) == toy.SHAPE
    assert [list(side) for side in properties["bbox_used_for_cropping"]] == [[2, 14], [4, 20], [4, 20]]
    assert tuple(properties["shape_after_cropping_and_before_resampling"]) == (12, 16, 16)
    normalised = preprocessor._normalize(
        image[:, 2:14, 4:20, 4:20].copy(),
        np.zeros((1, 12, 16, 16), np.int8),
        configuration,
        plans_manager.foreground_intensity_properties_per_channel,
    )
    assert np.allclose(normalised, data, atol=1e-5)
