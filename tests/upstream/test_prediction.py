"""What we rely on of nnU-Net's prediction.

Values are written down or computed here by plain NumPy, so that a red test says what has changed upstream.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_3dct import upstream
from tests.upstream.covered import covers


@covers("compute_steps_for_sliding_window")
@pytest.mark.parametrize(
    ("size", "tile", "step", "expected"),
    [
        ((110,), (64,), 0.5, [[0, 23, 46]]),
        ((16, 24), (16, 16), 0.5, [[0], [0, 8]]),
        ((24,), (16,), 1.0, [[0, 8]]),
    ],
)
def test_windows_are_spread_evenly(
    size: tuple[int, ...], tile: tuple[int, ...], step: float, expected: list[list[int]]
) -> None:
    assert upstream.compute_steps_for_sliding_window(size, tile, step) == expected


@covers("compute_gaussian")
def test_weight_of_a_window_is_the_gaussian_of_scipy_with_its_maximum_scaled() -> None:
    from scipy.ndimage import gaussian_filter

    found = upstream.compute_gaussian(
        (8, 16), sigma_scale=1 / 8, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu")
    )
    point = np.zeros((8, 16))
    point[4, 8] = 1
    expected = gaussian_filter(point, (1, 2), 0, mode="constant", cval=0)
    assert np.allclose(found.numpy(), expected / expected.max() * 10, atol=1e-5)
    assert found.min() > 0


def _properties() -> dict[str, Any]:
    return {
        "spacing": [1.0, 1.0, 1.0],
        "shape_before_cropping": (6, 6, 6),
        "shape_after_cropping_and_before_resampling": (4, 4, 4),
        "bbox_used_for_cropping": [[1, 5], [1, 5], [1, 5]],
        "sitk_stuff": {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": tuple(np.eye(3).ravel())},
    }


def _logits() -> torch.Tensor:
    """Organ (1) in the upper half of a cropped volume of four voxels along each axis."""
    logits = torch.zeros(3, 4, 4, 4)
    logits[0, 2:], logits[1, :2] = 5, 5
    return logits


@covers("convert_predicted_logits_to_segmentation_with_correct_shape")
def test_logits_become_labels_on_the_grid_before_cropping(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any]
) -> None:
    labels = plans_manager.get_label_manager(dataset_json)
    found = upstream.convert_predicted_logits_to_segmentation_with_correct_shape(
        _logits(), plans_manager, configuration, labels, _properties(), num_threads_torch=torch.get_num_threads()
    )
    expected = np.zeros((6, 6, 6))
    expected[1:3, 1:5, 1:5] = 1
    assert np.array_equal(found, expected)


@covers("export_prediction_from_logits")
def test_export_writes_labels_and_with_them_probabilities_and_properties(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any], tmp_path: Path
) -> None:
    upstream.export_prediction_from_logits(
        _logits(), _properties(), configuration, plans_manager, dataset_json, str(tmp_path / "case"), True
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.nii.gz", "case.npz", "case.pkl"]
    probabilities = np.load(tmp_path / "case.npz")["probabilities"]
    assert probabilities.shape == (3, 6, 6, 6) and np.allclose(probabilities.sum(0), 1, atol=1e-3)


@covers("nnUNetPredictor")
def test_predictor_takes_a_network_and_slides_it_over_a_volume(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any]
) -> None:
    class Marker(torch.nn.Module):
        """Says organ (1) wherever the input is positive."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([-x, x, torch.full_like(x, -100)], dim=1)

    predictor = upstream.nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.manual_initialization(Marker(), plans_manager, configuration, None, dataset_json, "any", None)
    data = torch.ones(1, 16, 24, 24)
    data[:, :, 12:] = -1
    logits = predictor.predict_sliding_window_return_logits(data)
    assert logits.shape == (3, 16, 24, 24)
    assert torch.equal(logits.argmax(0) == 1, data[0] > 0)


@covers("nnUNetPredictor")
def test_predictor_starts_a_case_again_after_any_runtime_error(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what a network notes on the side has to belong to a case, not to a pass."""
    source = inspect.getsource(upstream.nnUNetPredictor.predict_sliding_window_return_logits)
    assert "except RuntimeError" in source and "perform_everything_on_device" in source
    predictor = upstream.nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.manual_initialization(torch.nn.Identity(), plans_manager, configuration, None, dataset_json, "any", None)
    predictor.device, predictor.perform_everything_on_device = _PretendCuda(), True
    calls = []

    def attempt(data: torch.Tensor, slicers: object, on_device: bool) -> torch.Tensor:
        calls.append(on_device)
        if on_device:
            raise RuntimeError("cuDNN error: unable to find an engine")
        return data

    monkeypatch.setattr(predictor, "_internal_predict_sliding_window_return_logits", attempt)
    monkeypatch.setattr(predictor.network, "to", lambda device: predictor.network)
    monkeypatch.setattr("nnunetv2.inference.predict_from_raw_data.empty_cache", lambda device: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: torch.no_grad())
    predictor.predict_sliding_window_return_logits(torch.ones(1, 16, 16, 16))
    assert calls == [True, False]


class _PretendCuda:
    """Stands for a CUDA device where none is needed."""

    type = "cuda"


@covers("merge_files")
def test_probabilities_of_two_predictions_are_averaged_into_one_segmentation(
    plans_manager: Any, configuration: Any, dataset_json: dict[str, Any], tmp_path: Path
) -> None:
    labels = plans_manager.get_label_manager(dataset_json)
    for name, logits in (("first", _logits()), ("second", 0.8 * _logits().flip(1))):
        target = str(tmp_path / name)
        upstream.export_prediction_from_logits(
            logits, _properties(), configuration, plans_manager, dataset_json, target, True
        )
    files = [str(tmp_path / f"{name}.npz") for name in ("first", "second")]
    reader = plans_manager.image_reader_writer_class()
    upstream.merge_files(files, str(tmp_path / "both"), ".nii.gz", reader, labels, False)
    read, first = (reader.read_seg(str(tmp_path / f"{name}.nii.gz"))[0] for name in ("both", "first"))
    expected = np.mean([np.load(file)["probabilities"].astype(np.float32) for file in files], axis=0).argmax(axis=0)
    assert np.array_equal(read[0], expected) and np.array_equal(read, first)
    assert not (tmp_path / "both.npz").exists()
