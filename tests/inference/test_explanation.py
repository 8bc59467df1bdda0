"""Evidence of windows put together, and its way onto the grid of the image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunet_3dct.errors import NNUNet3DCTError
from nnunet_3dct.formats.evidence_files import ENDINGS
from nnunet_3dct.formats.image_files import geometry_differences, image_geometry
from nnunet_3dct.inference.aggregation import CaseClass, average_folds
from nnunet_3dct.inference.explanation import (
    WindowExplainer,
    evidence_image,
    evidence_on_image_grid,
    explain_case,
    note_empty_map,
)
from nnunet_3dct.inference.preprocessing import preprocess
from nnunet_3dct.inference.windows import Windows, window_layout
from nnunet_3dct.networks.heads import ClassificationHead, FeatureSpec, UNetFeatures
from tests.inference.test_backends import network
from tests.inference.test_preprocessing import plans as planned
from tests.inference.test_windows import PATCH, image, windows
from tests.utils import write_volume

CPU = torch.device("cpu")
ODD = (0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8)  # axes turned, mirrored and oblique


# ---------------------------------------------------------------------- what is computed


class Intensity(ClassificationHead):
    """The second class has the mean intensity of the window, and 5 as its bias."""

    name = "intensity"

    def forward(self, features: UNetFeatures) -> Tensor:
        mean = features.encoder[0].flatten(1).mean(1)
        return torch.stack((0 * mean, mean + 5), 1)


class SeesTheImage(torch.nn.Module):
    """A network whose only features are the image."""

    def __init__(self, head: ClassificationHead | None = None) -> None:
        super().__init__()
        self.cls_head = head or Intensity(FeatureSpec((1,), (), 3), 2)
        self.looked = 0

    def segment_with_features(self, x: Tensor) -> tuple[Tensor, UNetFeatures]:
        self.looked += 1
        return x, UNetFeatures([x], [], x)


def case_class(*weights: float, pred: int = 1) -> CaseClass:
    return CaseClass((0.0, 1.0) if pred else (1.0, 0.0), len(weights), 1, 1, True, (weights,))


def explained(data: Tensor, found: CaseClass, cut: Windows, *networks: Any) -> Tensor:
    explainers = [WindowExplainer(n, CPU) for n in networks or [SeesTheImage()]]
    return explain_case(explainers, cut, data, found)


@pytest.mark.parametrize(("patch", "shape"), [(PATCH, (12, 20, 30)), (PATCH, (5, 9, 40)), ((8, 16), (3, 20, 30))])
def test_windows_join_without_seams(patch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    data, cut = image(*shape), windows(patch=patch)
    count = len(window_layout(shape, patch))
    found = explained(data, case_class(*[1 / count] * count), cut)
    voxels = int(np.prod(patch))
    torch.testing.assert_close(found, data[0].clamp_min(0) / voxels / count, rtol=1e-3, atol=1e-9)


def test_window_counts_by_its_weight_in_the_class_and_those_without_are_not_looked_at() -> None:
    data, seen = image(8, 8, 24).abs(), SeesTheImage()
    found = explained(data, case_class(0.75, 0.25), windows(), seen)  # 0 to 16 and 8 to 24
    shares = found / data[0] * int(np.prod(PATCH))
    torch.testing.assert_close(shares[..., :8], torch.full((8, 8, 8), 0.75))
    torch.testing.assert_close(shares[..., 16:], torch.full((8, 8, 8), 0.25))
    torch.testing.assert_close(shares[..., 12], torch.full((8, 8), 0.5))  # halfway between the middles
    assert seen.looked == 2
    found = explained(data, case_class(1.0, 0.0), windows(), seen)
    assert seen.looked == 3 and not bool(found[..., 16:].any())


def test_evidence_of_one_window_adds_up_to_the_margin_without_bias() -> None:
    data = image(*PATCH).abs()
    found = explained(data, case_class(1.0), windows())
    assert float(found.sum()) == pytest.approx(float(data.mean()), rel=1e-5)


def test_only_what_speaks_for_the_class_is_shown() -> None:
    data = image(*PATCH)
    for_it, against = (explained(data, case_class(1.0, pred=label), windows()) for label in (1, 0))
    assert bool(((for_it > 0) == (data[0] > 0)).all()) and bool(((against > 0) == (data[0] < 0)).all())


def test_folds_are_averaged() -> None:
    data, cut = image(12, 20, 30), windows()
    networks = [network("simple"), network("simple")]
    with torch.no_grad():
        networks[1].cls_head.classifier.weight.mul_(-3)
    count = len(window_layout(data.shape[1:], PATCH))
    one = case_class(*[1 / count] * count)
    both = average_folds([one, one])
    assert both.window_weights == one.window_weights * 2
    first = explained(data, one, cut, networks[0])
    found = explained(data, both, cut, *networks)
    opposite = explained(data, case_class(*[1 / count] * count, pred=1), cut, networks[1])
    assert bool((found <= (first + opposite) / 2 + 1e-9).all()) and bool((found < first).any())
    with torch.no_grad():
        networks[1].cls_head.classifier.weight.div_(-3)
    torch.testing.assert_close(explained(data, both, cut, *networks), first)


@pytest.mark.parametrize("data", [-torch.ones(1, *PATCH), torch.zeros(1, *PATCH)], ids=["against", "nothing"])
def test_black_map_is_noted_in_the_report(data: Tensor) -> None:
    report: dict[str, object] = {}
    assert note_empty_map(report, explained(data, case_class(1.0), windows()))
    assert "no place speaks for the predicted class" in str(report["evidence"])
    assert not note_empty_map(report := {}, explained(torch.ones(1, *PATCH), case_class(1.0), windows()))
    assert not note_empty_map(report, None) and report == {}


def test_evidence_that_is_no_number_is_refused() -> None:
    data = image(*PATCH)
    data[0, 1, 1, 1] = float("nan")
    with pytest.raises(NNUNet3DCTError, match="finite"):
        explained(data, case_class(1.0), windows())


# ---------------------------------------------------------------------- on the grid of the image


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("transpose", [[0, 1, 2], [2, 0, 1]])
def test_bright_spot_is_found_back_where_it_is_in_the_image(configuration: str, transpose: list[int]) -> None:
    back = [transpose.index(axis) for axis in range(3)]
    plans = PlansManager({**planned().plans, "transpose_forward": transpose, "transpose_backward": back})
    volume = np.zeros((1, 20, 30, 40), np.float32)
    volume[0, 4:18, 5:25, 3:33] = 100  # the rest is cropped away
    volume[0, 12:15, 8:11, 24:27] = 180
    properties: dict[str, Any] = {"spacing": [2.0, 1.0, 1.0]}
    data = preprocess(volume, properties, plans, plans.get_configuration(configuration), {}, CPU)
    found = evidence_on_image_grid((data[0] - data[0].median()).clamp_min(0), properties, plans)
    assert found.shape == volume.shape[1:] and found.dtype == np.float32
    assert found.min() == 0 and found.max() == 1
    centre = np.average(np.argwhere(found > 0.5), axis=0)
    np.testing.assert_allclose(centre, (13, 9, 25), atol=0.6)
    outside = np.ones(found.shape, bool)
    outside[4:18, 5:25, 3:33] = False
    assert not found[outside].any()


@pytest.mark.parametrize(
    ("reader", "ending"),
    [
        (reader, ending)
        for reader in (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient)
        for ending in ENDINGS
        if ending in reader.supported_file_endings
    ],
)
def test_map_lies_on_the_grid_of_the_file_whatever_the_reader_does_to_its_axes(
    reader: type, ending: str, tmp_path: Path
) -> None:
    volume = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    file = write_volume(tmp_path / f"image{ending}", volume, (1.5, 0.7, 2.0), (-20, 30, 4), ODD)
    seen, properties = reader().read_images([str(file)])
    plans = SimpleNamespace(image_reader_writer_class=reader)
    found = evidence_image(seen[0], properties, plans, ending)
    original = SimpleITK.ReadImage(str(file))
    assert geometry_differences(image_geometry(found), image_geometry(original)) == []
    assert found.GetPixelID() == SimpleITK.sitkFloat32
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(found), volume, atol=1e-5)


def test_flat_image_has_a_flat_map(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((6, 7)).astype(np.float32)
    file = write_volume(tmp_path / "image.nii.gz", volume, (1.5, 0.7), (-20, 30))
    seen, properties = SimpleITKIO().read_images([str(file)])
    found = evidence_image(seen[0], properties, SimpleNamespace(image_reader_writer_class=SimpleITKIO), ".nii.gz")
    assert found.GetSize() == (7, 6) and found.GetSpacing() == pytest.approx((1.5, 0.7))
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(found), volume, atol=1e-5)
