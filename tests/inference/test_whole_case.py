"""The class of a whole case does not depend on how the case is cut into windows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from nnunet_3dct.inference.backends.base import Backend
from nnunet_3dct.inference.measurements import measure_case, measurement_names
from nnunet_3dct.inference.window_shares import window_shares
from nnunet_3dct.inference.windows import AboutCase, Windows, mirrored_passes, window_layout
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.heads import build_head
from nnunet_3dct.networks.target import TargetLabels

CPU = torch.device("cpu")
LABELS = SimpleNamespace(has_regions=False, all_labels=[0, 1], label_dict={"background": 0, "lesion": 1})
SPEC = FeatureSpec((2, 3), (2,), 3)


class Pointwise(Backend):
    """A network whose features and logits depend on the voxel, or on blocks of two voxels, alone."""

    name, precision, device = "torch", "f32", CPU

    def __init__(self) -> None:
        self.head = build_head("case", SPEC, 3, measured=measurement_names(1))

    def features(self, x: torch.Tensor) -> UNetFeatures:
        coarse = functional.avg_pool3d(x, 2)
        logits = torch.cat((-4 * x, 4 * x), 1)
        return UNetFeatures([torch.cat((x, x**2), 1), torch.cat((coarse, -coarse, coarse**2), 1)],
                            [torch.cat((x.sin(), x.cos()), 1)], logits)  # fmt: skip

    def __call__(
        self, windows: torch.Tensor, classify: bool = True, importance: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        features = self.features(windows)
        return features.logits, self.head.summarize(features, importance)[0] if classify else None


def case_image(shape: tuple[int, int, int] = (16, 24, 32)) -> torch.Tensor:
    """Background below zero, a ball above it."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij"))
    ball = ((grid - torch.tensor([7, 11, 17]).reshape(3, 1, 1, 1)) ** 2).sum(0) < 36
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    return torch.where(ball, 1.5 + 0.3 * noise, -1.5 + 0.3 * noise)[None]


def columns(
    patch: tuple[int, ...], step: float, tta: str = "none", image: torch.Tensor | None = None, at_once: int = 3
) -> np.ndarray:
    image = case_image() if image is None else image
    passes = mirrored_passes(range(3), tta)
    windows = Windows(patch, step, passes, 2, TargetLabels(LABELS, ["lesion"]))
    _, found = windows.predict(Pointwise(), image, at_once, CPU, AboutCase((1.0, 1.0, 1.0)))
    assert found.passes_per_window == len(passes) and sum(found.window_weights[0]) == pytest.approx(1)
    return found.columns[0].numpy()


@pytest.mark.parametrize("patch", [(8, 8, 8), (16, 8, 16), (8, 24, 32)])
@pytest.mark.parametrize("step", [0.5, 0.25, 1.0])
def test_number_size_and_overlap_of_windows_make_no_difference(patch: tuple[int, ...], step: float) -> None:
    np.testing.assert_allclose(columns(patch, step), columns((16, 24, 32), 1.0), rtol=2e-4, atol=2e-4)


def test_mirrored_passes_make_no_difference() -> None:
    np.testing.assert_array_equal(
        columns((8, 8, 8), 0.5, "full", at_once=5), columns((8, 8, 8), 0.5, "none", at_once=1)
    )


def test_padding_makes_no_difference() -> None:
    image = case_image((12, 20, 28))
    np.testing.assert_allclose(
        columns((12, 20, 28), 1.0, image=image), columns((16, 24, 32), 1.0, image=image), rtol=2e-3, atol=2e-3
    )


def test_measurements_are_those_of_the_whole_outline() -> None:
    image = case_image()
    probability = (torch.cat((-4 * image, 4 * image)).softmax(0))[1]
    expected = measure_case(image.numpy(), probability.numpy(), (1.0, 1.0, 1.0))
    head = Pointwise().head
    np.testing.assert_allclose(columns((8, 8, 8), 0.5)[head.layout.network_width :], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(9, 17, 20), (8, 8, 8), (31, 9, 8)])
def test_shares_of_every_voxel_add_up_to_one_and_padding_has_none(shape: tuple[int, ...]) -> None:
    patch = (8, 8, 8)
    windows = window_layout(shape, patch, 0.5)
    inside = (slice(1, shape[0]), slice(0, shape[1]), slice(0, shape[2] - 2))
    total = torch.zeros(shape)
    for window, share in zip(windows, window_shares(windows, patch, inside), strict=True):
        total[window[1:]] += share[0]
    expected = torch.zeros(shape)
    expected[inside] = 1
    torch.testing.assert_close(total, expected)


def test_slices_of_a_2d_network_have_whole_shares() -> None:
    windows = window_layout((3, 8, 8), (8, 8), 0.5)
    shares = window_shares(windows, (8, 8), (slice(0, 8), slice(0, 8)))
    assert len(shares) == 3 and all(bool((share == 1).all()) for share in shares)


def test_head_of_fewer_measurements_gets_those_it_was_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    every = columns((16, 24, 32), 1.0)
    all_names = Pointwise().head.layout.names
    fewer = {"shape": ["volume", "sphericity"], "image": ["percentile 50 of the image", "mean of the image"]}

    def old(backend: Pointwise) -> None:
        backend.head = build_head("case", SPEC, 3, measured=fewer)

    monkeypatch.setattr(Pointwise, "__init__", old)
    names = Pointwise().head.layout.names
    assert names[-2:] == ("percentile 50 of the image", "mean of the image") and len(names) < len(all_names)
    found = columns((16, 24, 32), 1.0)
    np.testing.assert_allclose(found, [every[all_names.index(name)] for name in names])
