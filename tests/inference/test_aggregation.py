from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from nnunet_3dct.formats.class_files import class_file
from nnunet_3dct.inference.aggregation import CaseClass, ClassRecord, average_folds, passes_per_window
from nnunet_3dct.inference.recording import RecordingNetwork
from nnunet_3dct.networks.target import TargetLabels

LABELS = SimpleNamespace(has_regions=False, all_labels=[0, 1, 2], label_dict={"background": 0, "organ": 1, "lesion": 2})


def log(*probs: float) -> torch.Tensor:
    return torch.tensor([probs]).log()


def collect(passes: int, *seen: tuple[tuple[float, ...], float]) -> CaseClass:
    """Result after one forward pass for each of ``seen``: class probabilities and target voxels."""
    record = ClassRecord(passes)
    for probs, voxels in seen:
        record.add(log(*probs), torch.tensor([voxels]))
    return record.result()


def test_mirrored_passes_of_a_window_are_averaged() -> None:
    result = collect(2, ((0.9, 0.1), 7), ((0.5, 0.5), 7))
    assert result.probs == pytest.approx((0.7, 0.3))
    assert (result.windows, result.passes_per_window, result.folds) == (1, 2, 1)


def test_a_head_may_speak_from_the_plain_pass_of_each_window_alone() -> None:
    record = ClassRecord(2, averages_mirrors=False)
    for probs, voxels in (((0.8, 0.2), 10.0), ((0.1, 0.9), 30.0), ((0.6, 0.4), 60.0), ((0.3, 0.7), 60.0)):
        record.add(log(*probs), torch.tensor([voxels]))
    assert record.result().probs == pytest.approx(((20 * 0.8 + 60 * 0.6) / 80, (20 * 0.2 + 60 * 0.4) / 80))


def test_mirrored_passes_count_the_same_whatever_target_each_shows() -> None:
    assert collect(2, ((0.9, 0.1), 0), ((0.5, 0.5), 100)).probs == pytest.approx((0.7, 0.3))


def test_windows_are_weighted_by_the_target_that_they_show() -> None:
    result = collect(1, ((0.8, 0.2), 30), ((0.2, 0.8), 10), ((0.0001, 0.9999), 0))
    assert result.probs == pytest.approx((0.65, 0.35))
    assert result.saw_target and result.windows == 3


def test_mirrors_first_then_windows() -> None:
    result = collect(2, ((0.8, 0.2), 10), ((0.6, 0.4), 30), ((0.1, 0.9), 60), ((0.3, 0.7), 60))
    assert result.probs == pytest.approx(((20 * 0.7 + 60 * 0.2) / 80, (20 * 0.3 + 60 * 0.8) / 80))


def test_without_target_all_windows_count_the_same() -> None:
    result = collect(1, ((0.8, 0.2), 0), ((0.4, 0.6), 0))
    assert result.probs == pytest.approx((0.6, 0.4))
    assert not result.saw_target


def test_one_batch_equals_single_passes() -> None:
    record = ClassRecord(1)
    record.add(torch.cat((log(0.8, 0.2), log(0.2, 0.8))), torch.tensor([30.0, 10.0]))
    assert record.result().probs == pytest.approx(collect(1, ((0.8, 0.2), 30), ((0.2, 0.8), 10)).probs)


@pytest.mark.parametrize("passes", [0, 1, 3, 9])
def test_incomplete_window_is_an_error(passes: int) -> None:
    with pytest.raises(RuntimeError, match=f"{passes} passes do not make up windows of 8"):
        collect(8, *[((0.5, 0.5), 1.0)] * passes)


def test_last_passes_count_where_the_number_of_windows_is_known() -> None:
    record = ClassRecord(2, averages_mirrors=False)
    for probs in ((0.5, 0.5), (0.4, 0.6), (0.3, 0.7)):  # an attempt that was broken off within a window
        record.add(log(*probs), torch.tensor([9.0]))
    for probs, voxels in (((0.8, 0.2), 10.0), ((0.1, 0.9), 30.0), ((0.6, 0.4), 60.0), ((0.3, 0.7), 60.0)):
        record.add(log(*probs), torch.tensor([voxels]))
    assert record.result(2).probs == pytest.approx(((20 * 0.8 + 60 * 0.6) / 80, (20 * 0.2 + 60 * 0.4) / 80))
    with pytest.raises(RuntimeError, match="7 passes do not make up 4 windows of 2"):
        record.result(4)


def test_cleared_record_does_not_leak_into_the_next_case() -> None:
    record = ClassRecord(1)
    record.add(log(0.1, 0.9), torch.tensor([50.0]))
    record.clear()
    record.add(log(0.8, 0.2), torch.tensor([1.0]))
    assert record.result() == collect(1, ((0.8, 0.2), 1))


def test_folds_are_averaged() -> None:
    first, second = collect(1, ((0.9, 0.1), 5)), collect(1, ((0.4, 0.6), 0))
    result = average_folds([first, second])
    assert result.probs == pytest.approx((0.65, 0.35))
    assert (result.folds, result.windows, result.saw_target) == (2, 1, True)


def test_softmax_of_the_logits_gives_the_probabilities_back() -> None:
    result = collect(1, ((0.7, 0.2, 0.1), 3), ((0.1, 0.6, 0.3), 4))
    logits = class_file(result.probs, None)["logits"]
    back = torch.tensor(logits, dtype=torch.float64).softmax(0).tolist()
    assert back == pytest.approx(result.probs, abs=1e-12)
    assert sum(result.probs) == pytest.approx(1)
    assert result.pred == max(range(3), key=logits.__getitem__)


def test_certain_class_has_finite_logits() -> None:
    assert all(map(math.isfinite, class_file((1.0, 0.0), None)["logits"]))


@pytest.mark.parametrize(("axes", "passes"), [(None, 1), ((), 1), ((0,), 2), ((0, 1), 4), ((0, 1, 2), 8)])
def test_passes_follow_from_the_mirrored_axes(axes: tuple[int, ...] | None, passes: int) -> None:
    assert passes_per_window(axes) == passes


class Network(torch.nn.Module):
    """Segments its input by threshold; the class follows the mean."""

    def forward(self, x: torch.Tensor, return_cls: bool = False):
        segmentation = torch.cat((torch.full_like(x, 0.5), x, 2 * x - 1), 1)
        return segmentation, torch.stack((x.flatten(1).mean(1), -x.flatten(1).mean(1)), 1)


def test_network_returns_the_segmentation_alone_and_notes_class_and_target() -> None:
    network = RecordingNetwork(Network(), TargetLabels(LABELS, ["lesion"]), 1)
    x = torch.zeros(1, 1, 4, 4, 4)
    x[..., 0, 0, :3] = 2  # label 2 in three voxels
    assert torch.equal(network(x), Network()(x)[0])
    network(torch.zeros(1, 1, 4, 4, 4))
    result = network.result()
    assert result.saw_target and result.windows == 2
    assert result.probs == pytest.approx(tuple(Network()(x)[1].softmax(1)[0].tolist()))
